"""C-GET and C-MOVE: the bytes as received, in every way that peers ask for them, and true accounts of what failed."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import evt
from pynetdicom.sop_class import _STORAGE_CLASSES
from sqlalchemy import select

from support import dcmtk
from support.datasets import (
    CT_IMAGE,
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    MR_IMAGE,
    UNDEFINED,
    EncodedDataSet,
    Syntax,
    ct_series,
    element,
    encapsulated,
    encode,
    finish,
    instance,
    mr_series,
    multi_frame,
    one_of_each,
    patient,
)
from support.query_retrieve import (
    Operation,
    archive,
    cancel_at,
    counts,
    destination,
    gateway_with,
    get,
    identifier,
    move,
    multiply_rows,
)
from support.receiver import Running, wait_until
from support.servers import free_port
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.transcode import to_native
from thinfilm_gateway.dimse import status
from thinfilm_gateway.index.models import AuditEvent, Derivation
from thinfilm_gateway.index.states import InstanceState

STUDY_UID = str(patient()["StudyInstanceUID"])
STUDY = identifier("STUDY", StudyInstanceUID=STUDY_UID)
CT = ct_series(6, 32)
NATIVE = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
CT_AS_RECEIVED = [(CT_IMAGE, [EXPLICIT_LITTLE])]


def series_uid(encoded: EncodedDataSet) -> str:
    return str(read(encoded).SeriesInstanceUID)


def read(encoded: EncodedDataSet) -> Any:
    return dcmread(io.BytesIO(encoded.part10()))


def datasets(objects: Sequence[EncodedDataSet]) -> dict[str, bytes]:
    return {one.sop_instance_uid: one.dataset for one in objects}


def came(operation: Operation) -> dict[str, bytes]:
    return {one.sop_instance_uid: one.dataset for one in operation.received}


def files(folder: Path) -> dict[str, bytes]:
    """The data sets that a DCMTK program wrote."""
    found = {}
    for path in folder.iterdir():
        raw = path.read_bytes()
        header = part10.locate(raw)
        assert header is not None
        found[header.sop_instance_uid] = raw[header.dataset_offset :]
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that has CT, for tests that only read."""
    peers = (peer(free_port()), {"ae_title": "NOPORT", "host": "127.0.0.1"})
    with gateway(tmp_path_factory.mktemp("shared"), peers=peers) as running:
        yield running


@contextlib.contextmanager
def gateway(folder: Path, objects: Sequence[EncodedDataSet] = CT, **settings: Any) -> Iterator[Running]:
    with gateway_with(folder / "gateway", objects, **settings) as running:
        yield running


def peer(port: int, ae_title: str = "DESTINATION") -> dict[str, Any]:
    return {"ae_title": ae_title, "host": "127.0.0.1", "port": port}


@pytest.mark.parametrize("where", ["in the spool", "in spool and container", "in a container only"])
def test_dcmtk_gets_a_study_byte_for_byte(tmp_path: Path, where: str):
    (tmp_path / "got").mkdir()
    with gateway(tmp_path) as running:
        if where != "in the spool":
            archive(running, drop_spool=where == "in a container only")
        dcmtk.getscu(
            running.port, ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY_UID}"], tmp_path / "got", "-S"
        ).check()
    assert files(tmp_path / "got") == datasets(CT)


@pytest.mark.parametrize("where", ["in the spool", "in a container only"])
def test_dcmtk_moves_a_study_byte_for_byte(tmp_path: Path, where: str):
    (tmp_path / "got").mkdir()
    port = free_port()
    with gateway(tmp_path, peers=(peer(port, "STORESCP"),)) as running, dcmtk.storescp(port, tmp_path / "got"):
        if where != "in the spool":
            archive(running, drop_spool=True)
        keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY_UID}"]
        dcmtk.movescu(running.port, keys, "STORESCP", "-S").check()
    assert files(tmp_path / "got") == datasets(CT)


def test_objects_of_every_kind_and_syntax_come_back_as_received(tmp_path: Path):
    objects = list(one_of_each().values())
    contexts = sorted({(one.sop_class_uid, one.transfer_syntax_uid) for one in objects})
    with gateway(tmp_path, objects) as running:
        got = get(running.port, STUDY, [(uid, [syntax]) for uid, syntax in contexts])
    assert got.status == status.SUCCESS
    assert got.counts == (None, len(objects), 0, 0)
    assert came(got) == datasets(objects)
    assert {one.sop_instance_uid: one.transfer_syntax_uid for one in got.received} == {
        one.sop_instance_uid: one.transfer_syntax_uid for one in objects
    }


def test_the_peers_order_of_preference_does_not_stand_before_the_received_syntax(tmp_path: Path):
    objects = ct_series(1, 32, EXPLICIT_BIG, series="big") + ct_series(1, 32, DEFLATED, series="deflated") + CT[:1]
    with (
        destination([(CT_IMAGE, [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED])]) as (port, arrived),
        gateway(tmp_path, objects, peers=(peer(port),)) as running,
    ):
        moved = move(running.port, STUDY, "DESTINATION")
    assert moved.status == status.SUCCESS
    assert came(arrived) == datasets(objects)


def odd_structures() -> dict[str, EncodedDataSet]:
    """CT slices of one series whose data sets are well-formed to most, each in its own odd way."""
    explicit, big = ct_series(9, 32), ct_series(9, 32, EXPLICIT_BIG)

    def insert(encoded: EncodedDataSet, odd: bytes, syntax: Syntax, tag: int = 0x00280002) -> EncodedDataSet:
        at = encoded.dataset.index(element(tag, "US", b"", syntax, 2))
        return encoded._replace(dataset=encoded.dataset[:at] + odd + encoded.dataset[at:])

    little, item_end = Syntax(), element(0xFFFEE00D, "", b"", Syntax())
    referenced = encode({"ReferencedSOPInstanceUID": "1.2.3.4 "}, little)
    opened = element(0xFFFEE000, "", referenced + item_end, little, UNDEFINED)
    closed = element(0xFFFEE0DD, "", b"", little)
    implicit = element(0x00081155, "", b"1.2.3.4\0", Syntax(implicit=True))
    unknown = element(0xFFFEE000, "", implicit + item_end, little, UNDEFINED) + closed
    return {
        "surplus delimiters": insert(
            explicit[0], element(0x00081140, "SQ", opened + closed + item_end + closed, little, UNDEFINED), little
        ),
        "a VR that is none": insert(explicit[1], b"\x21\0\1\x10??\4\0abcd", little),
        "a VR of NULs": insert(explicit[2], b"\x21\0\1\x10\0\0\4\0abcd", little),
        "a VR of blanks": insert(explicit[3], b"\x21\0\1\x10  \4\0abcd", little),
        "an implicit element": insert(explicit[4], element(0x00211001, "", b"abcd", Syntax(implicit=True)), little),
        "UN of undefined length": insert(explicit[5], element(0x00211001, "UN", unknown, little, UNDEFINED), little),
        "UN with explicit elements": insert(
            explicit[6], element(0x00211001, "UN", opened + closed, little, UNDEFINED), little
        ),
        "file meta elements": explicit[7]._replace(
            dataset=encode({0x00020000: ("UL", 28), 0x00020010: ("UI", "1.2.840.10008.1.2.1\0")}, little)
            + explicit[7].dataset
        ),
        "UN in big endian": insert(
            big[8], element(0x00211001, "UN", unknown, Syntax(big=True), UNDEFINED), Syntax(big=True)
        ),
    }


@pytest.mark.parametrize("target", NATIVE)
def test_odd_structures_are_archived_and_delivered_with_every_element(tmp_path: Path, target: str):
    objects = odd_structures()
    with gateway(tmp_path, list(objects.values())) as running:
        archive(running, drop_spool=True)
        assert {instance.state.value for instance in running.instances()} == {"archived"}
        as_received = get(running.port, STUDY, [(CT_IMAGE, [EXPLICIT_LITTLE]), (CT_IMAGE, [EXPLICIT_BIG])])
        native = get(running.port, STUDY, [(CT_IMAGE, [target])])
    assert came(as_received) == datasets(list(objects.values()))
    assert native.counts == (None, len(objects), 0, 0)
    delivered = {one.sop_instance_uid: one for one in native.received}
    plain = {one.sop_instance_uid: one for one in ct_series(9, 32)}
    for name, encoded in objects.items():
        one = delivered[encoded.sop_instance_uid]
        if encoded.transfer_syntax_uid == target:
            assert one.dataset == encoded.dataset
            continue
        found = read(EncodedDataSet(one.dataset, one.transfer_syntax_uid, CT_IMAGE, one.sop_instance_uid))
        expected = read(plain[encoded.sop_instance_uid])
        assert {tag for tag in expected.keys() if tag.element} <= found.keys(), name  # noqa: SIM118
        assert (found.Rows, found.PatientName, found.PixelData) == (32, expected.PatientName, expected.PixelData), name
        if name == "surplus delimiters":
            assert found[0x00081140].value[0].ReferencedSOPInstanceUID == "1.2.3.4"
        elif name.startswith("UN") and target == EXPLICIT_LITTLE:
            assert found[0x00211001].value[0].ReferencedSOPInstanceUID == "1.2.3.4"
        elif name != "file meta elements":
            assert b"1.2.3.4" in one.dataset or b"abcd" in one.dataset


@pytest.mark.parametrize("target", NATIVE)
@pytest.mark.parametrize("by", ["C-GET", "C-MOVE"])
def test_a_peer_that_takes_one_native_syntax_only_gets_that(tmp_path: Path, target: str, by: str):
    objects = [
        *ct_series(1, 32),
        *ct_series(1, 32, EXPLICIT_BIG, series="big"),
        *ct_series(1, 32, DEFLATED, series="deflated"),
        *ct_series(1, 32, IMPLICIT_LITTLE, series="implicit"),
    ]
    with (
        destination([(CT_IMAGE, [target])]) as (port, arrived),
        gateway(tmp_path, objects, peers=(peer(port),)) as running,
    ):
        if by == "C-GET":
            arrived = done = get(running.port, STUDY, [(CT_IMAGE, [target])])
        else:
            done = move(running.port, STUDY, "DESTINATION")
    assert done.counts == (None, 4, 0, 0)
    assert came(arrived) == {
        one.sop_instance_uid: one.dataset
        if one.transfer_syntax_uid == target
        else to_native(one.dataset, one.transfer_syntax_uid, target)
        for one in objects
    }


def test_what_cannot_be_transcoded_is_a_failed_suboperation_and_the_rest_comes(tmp_path: Path):
    broken = encapsulated()
    objects = [*CT[:2], broken]
    contexts = [(CT_IMAGE, [EXPLICIT_LITTLE]), (broken.sop_class_uid, [EXPLICIT_LITTLE])]
    with gateway(tmp_path, objects) as running:
        got = get(running.port, STUDY, contexts)
    assert got.status == status.SUBOPERATIONS_COMPLETE_WITH_FAILURES
    assert got.counts == (None, 2, 1, 0)
    assert got.failed_uids == [broken.sop_instance_uid]
    assert came(got) == datasets(CT[:2])


def test_an_object_of_a_class_that_the_peer_did_not_offer_fails(tmp_path: Path):
    objects = [*CT[:2], *mr_series(2)]
    with gateway(tmp_path, objects) as running:
        got = get(running.port, STUDY, CT_AS_RECEIVED)
    assert got.counts == (None, 2, 2, 0)
    assert set(got.failed_uids) == {one.sop_instance_uid for one in objects[2:]}


def test_without_the_scp_role_everything_fails(shared: Running):
    got = get(shared.port, STUDY, CT_AS_RECEIVED, roles=False)
    assert got.status == status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert got.counts == (None, 0, len(CT), 0)
    assert set(got.failed_uids) == set(datasets(CT))
    assert "SpecificCharacterSet" not in got.responses[-1][1]


def test_pending_responses_count_truly_and_only_the_last_one_may_have_an_identifier(shared: Running):
    got = get(shared.port, STUDY, CT_AS_RECEIVED)
    assert [counts(response) for response, _ in got.responses[:-1]] == [
        (len(CT) - sent, sent, 0, 0) for sent in range(1, len(CT))
    ]
    assert {response.Status for response, _ in got.responses[:-1]} == {status.PENDING}
    assert all(not answered for _, answered in got.responses)


def test_warnings_and_failures_of_the_peer_are_counted_apart(shared: Running):
    answers = dict(zip(datasets(CT), [0x0000, 0xB007, 0xA700, 0xC000, 0xB000, 0x0000], strict=True))
    got = get(shared.port, STUDY, CT_AS_RECEIVED, answer=lambda received: answers[received.sop_instance_uid])
    assert got.status == status.SUBOPERATIONS_COMPLETE_WITH_FAILURES
    assert got.counts == (None, 2, 2, 2)
    assert set(got.failed_uids) == {uid for uid, answer in answers.items() if answer in (0xA700, 0xC000)}


def test_zero_matches_are_success_with_zeros(shared: Running):
    nothing = identifier("STUDY", StudyInstanceUID="1.2.3")
    for done in (get(shared.port, nothing, CT_AS_RECEIVED), move(shared.port, nothing, "DESTINATION")):
        assert done.status == status.SUCCESS
        assert done.counts == (None, 0, 0, 0)


def test_every_level_and_lists_of_uids_select_what_they_name(tmp_path: Path):
    other = ct_series(2, 32, who=patient("Roe^Richard", "T-002", "other"), series="other")
    second = ct_series(2, 32, series="second")
    objects = [*CT, *second, *other]
    uids = [one.sop_instance_uid for one in objects]
    requests = [
        ("PATIENT", identifier("PATIENT", PatientID="T-002"), other),
        ("PATIENT", identifier("STUDY", PatientID="T-001", StudyInstanceUID=STUDY_UID), [*CT, *second]),
        ("STUDY", identifier("STUDY", StudyInstanceUID=[STUDY_UID, read(other[0]).StudyInstanceUID]), objects),
        ("STUDY", identifier("SERIES", StudyInstanceUID=STUDY_UID, SeriesInstanceUID=series_uid(second[0])), second),
        (
            "STUDY",
            identifier("SERIES", SeriesInstanceUID=[series_uid(second[0]), series_uid(other[0])]),
            second + other,
        ),
        (
            "STUDY",
            identifier("IMAGE", StudyInstanceUID=STUDY_UID, SOPInstanceUID=[uids[0], uids[6]]),
            [CT[0], second[0]],
        ),
        ("STUDY", identifier("IMAGE", SOPInstanceUID=uids[-1]), other[-1:]),
        ("PATIENT", identifier("IMAGE", PatientID="T-001", SOPInstanceUID=uids[-1]), []),
    ]
    with gateway(tmp_path, objects) as running:
        for root, keys, expected in requests:
            got = get(running.port, keys, CT_AS_RECEIVED, root)
            assert came(got) == datasets(expected), keys
            assert got.status == status.SUCCESS


@pytest.mark.parametrize(
    ("root", "keys", "comment"),
    [
        ("STUDY", identifier("STUDY"), "StudyInstanceUID"),
        ("STUDY", identifier("STUDY", StudyInstanceUID=""), "StudyInstanceUID"),
        ("STUDY", identifier("SERIES", StudyInstanceUID=STUDY_UID), "SeriesInstanceUID"),
        ("STUDY", identifier("IMAGE", SeriesInstanceUID="1.2"), "SOPInstanceUID"),
        ("STUDY", identifier("PATIENT", PatientID="T-001"), "must be one of STUDY, SERIES, IMAGE"),
        ("STUDY", identifier("WING", PatientID="T-001"), "must be one of STUDY, SERIES, IMAGE"),
        ("STUDY", identifier(None, StudyInstanceUID=STUDY_UID), "(0008,0052) is missing"),
        ("PATIENT", identifier("PATIENT", PatientID=["T-001", "T-002"]), "single PatientID"),
        ("STUDY", identifier("STUDY", StudyInstanceUID="2.25.*"), "wild cards"),
    ],
)
def test_a_request_that_names_nothing_is_refused_with_a_comment(shared: Running, root: str, keys: Any, comment: str):
    for done in (get(shared.port, keys, CT_AS_RECEIVED, root), move(shared.port, keys, "DESTINATION", root)):
        assert done.status == status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS
        assert comment in done.final.ErrorComment
        assert len(done.final.ErrorComment) <= 64


def test_an_unknown_destination_is_a801(shared: Running):
    for name in ("NOBODY", "NOPORT"):
        moved = move(shared.port, STUDY, name)
        assert moved.status == status.MOVE_DESTINATION_UNKNOWN
        assert name in moved.final.ErrorComment
    assert not dcmtk.movescu(
        shared.port, ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY_UID}"], "NOBODY", "-S"
    ).ok


def test_suboperations_of_a_move_name_its_originator(tmp_path: Path):
    with destination(CT_AS_RECEIVED) as (port, arrived), gateway(tmp_path, peers=(peer(port),)) as running:
        move(running.port, STUDY, "DESTINATION")
    assert {one.move_originator for one in arrived.received} == {("QR-USER", 7)}


@pytest.mark.parametrize("associations", [1, 2, 4])
def test_a_move_uses_as_many_associations_as_configured(tmp_path: Path, associations: int):
    accepted: list[Any] = []
    handler = (evt.EVT_ACCEPTED, lambda event: accepted.append(event.assoc))
    objects = ct_series(24, 32)
    with (
        destination(CT_AS_RECEIVED, on_event=[handler]) as (port, arrived),
        gateway(tmp_path, objects, peers=(peer(port),), move_associations=associations) as running,
    ):
        moved = move(running.port, STUDY, "DESTINATION")
        wait_until(lambda: len(accepted) == associations, "all associations were opened")
    assert moved.counts == (None, 24, 0, 0)
    assert came(arrived) == datasets(objects)


def test_a_destination_that_takes_one_association_only_gets_everything_over_it(tmp_path: Path):
    with (
        destination(CT_AS_RECEIVED, maximum_associations=1) as (port, arrived),
        gateway(tmp_path, peers=(peer(port),), move_associations=4) as running,
    ):
        moved = move(running.port, STUDY, "DESTINATION")
    assert moved.counts == (None, len(CT), 0, 0)
    assert came(arrived) == datasets(CT)


def test_a_destination_that_is_away_fails_everything(shared: Running):
    moved = move(shared.port, STUDY, "DESTINATION")
    assert moved.status == status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert moved.counts == (None, 0, len(CT), 0)
    assert set(moved.failed_uids) == set(datasets(CT))


def test_a_destination_that_rejects_the_association_fails_everything(tmp_path: Path):
    with (
        destination([(MR_IMAGE, [EXPLICIT_LITTLE])], maximum_associations=0) as (port, _),
        gateway(tmp_path, peers=(peer(port),)) as running,
    ):
        moved = move(running.port, STUDY, "DESTINATION")
    assert moved.status == status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert set(moved.failed_uids) == set(datasets(CT))


def test_a_destination_without_a_fitting_context_fails_everything(tmp_path: Path):
    with destination([(MR_IMAGE, [EXPLICIT_LITTLE])]) as (port, _), gateway(tmp_path, peers=(peer(port),)) as running:
        moved = move(running.port, STUDY, "DESTINATION")
    assert moved.status == status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert set(moved.failed_uids) == set(datasets(CT))


def test_a_destination_that_aborts_midway_has_the_rest_failed(tmp_path: Path):
    taken: list[str] = []

    def abort_at_the_third(event: Any) -> int:
        taken.append(str(event.request.AffectedSOPInstanceUID))
        if len(taken) == 3:
            event.assoc.abort()
        return 0

    with (
        destination(CT_AS_RECEIVED, on_event=[(evt.EVT_C_STORE, abort_at_the_third)]) as (port, _),
        gateway(tmp_path, peers=(peer(port),), move_associations=1) as running,
    ):
        moved = move(running.port, STUDY, "DESTINATION")
    assert moved.status == status.SUBOPERATIONS_COMPLETE_WITH_FAILURES
    assert moved.counts == (None, 2, 4, 0)
    assert set(moved.failed_uids) == set(datasets(CT)) - set(taken[:2])


def test_a_cancelled_get_ends_with_what_remains(tmp_path: Path):
    objects = ct_series(40, 32)
    with gateway(tmp_path, objects) as running:
        got = get(running.port, STUDY, CT_AS_RECEIVED, on_response=cancel_at(3))
    assert got.status == status.CANCEL
    remaining, completed, failed, warning = got.counts
    assert completed >= 3
    assert remaining > 0
    assert (remaining + completed, failed, warning) == (40, 0, 0)
    assert len(got.received) == completed
    assert got.failed_uids == []


def test_a_cancelled_move_ends_with_what_remains(tmp_path: Path):
    objects = ct_series(40, 32)

    with destination(CT_AS_RECEIVED) as (port, arrived), gateway(tmp_path, objects, peers=(peer(port),)) as running:
        moved = move(running.port, STUDY, "DESTINATION", on_response=cancel_at(1))
    assert moved.status == status.CANCEL
    remaining, completed, failed, warning = moved.counts
    assert remaining > 0
    assert (remaining + completed, failed, warning) == (40, 0, 0)
    assert len(arrived.received) == completed


def test_a_requestor_that_goes_away_stops_the_move(tmp_path: Path):
    objects = ct_series(60, 32)
    with destination(CT_AS_RECEIVED) as (port, arrived), gateway(tmp_path, objects, peers=(peer(port),)) as running:
        move(running.port, STUDY, "DESTINATION", on_response=lambda association, _: association.abort())
        wait_until(lambda: not running.receiver.associations, "the gateway has ended the association")
        assert len(arrived.received) < 60


def test_a_requestor_that_aborts_a_get_leaves_the_gateway_well(shared: Running):
    got = get(shared.port, STUDY, CT_AS_RECEIVED, on_response=lambda association, _: association.abort())
    assert len(got.responses) == 1
    assert get(shared.port, STUDY, CT_AS_RECEIVED).counts == (None, len(CT), 0, 0)


def test_presentation_contexts_beyond_128_go_over_further_associations(tmp_path: Path):
    classes = sorted(_STORAGE_CLASSES.values())[:70]
    objects = [
        finish({**instance(uid, "OT"), "SOPInstanceUID": f"2.25.{number}"}) for number, uid in enumerate(classes)
    ]
    proposed: list[int] = []
    handler = (evt.EVT_REQUESTED, lambda event: proposed.append(len(event.assoc.requestor.requested_contexts)))
    with (
        destination([(uid, [EXPLICIT_LITTLE]) for uid in classes], on_event=[handler]) as (port, arrived),
        gateway(tmp_path, objects, peers=(peer(port),), move_associations=1) as running,
    ):
        moved = move(running.port, STUDY, "DESTINATION")
    assert moved.counts == (None, 70, 0, 0)
    assert came(arrived) == datasets(objects)
    assert proposed == [128, 12]


def test_more_objects_than_the_counts_can_hold_are_refused(tmp_path: Path):
    with gateway(tmp_path, CT[:1]) as running:
        multiply_rows(running, 65537)
        got = get(running.port, STUDY, CT_AS_RECEIVED)
    assert got.status == status.UNABLE_TO_CALCULATE_MATCHES
    assert got.final.ErrorComment == "More than 65535 objects match."


def test_without_the_index_a_retrieval_is_refused(tmp_path: Path):
    with gateway(tmp_path, CT[:1]) as running:
        with running.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE containers RENAME TO elsewhere")
        got = get(running.port, STUDY, CT_AS_RECEIVED)
        assert got.status == status.UNABLE_TO_CALCULATE_MATCHES
        assert got.final.ErrorComment == "The index is not available."


def test_a_damaged_object_is_failed_audited_and_quarantined_and_never_sent(tmp_path: Path):
    with gateway(tmp_path) as running:
        instance = running.instances()[2]
        path = running.spool.path(str(instance.spool_name))
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(content)

        for _ in range(2):  # the second time, it is in quarantine already
            got = get(running.port, STUDY, CT_AS_RECEIVED)
            assert got.counts == (None, len(CT) - 1, 1, 0)
            assert got.failed_uids == [instance.sop_instance_uid]
            assert came(got) == {uid: raw for uid, raw in datasets(CT).items() if uid != instance.sop_instance_uid}
        assert running.instances()[2].state is InstanceState.QUARANTINED
        assert audits(running) == [("quarantined", instance.sop_instance_uid)]


@pytest.mark.parametrize("serve", ["derived", "failure"])
def test_for_an_original_that_is_gone_the_derived_object_goes_or_a_failure_comes(tmp_path: Path, serve: str):
    with gateway(tmp_path) as running:
        derived = running.instances()[2]
        gone = Derivation(
            series_pk=derived.series_pk,
            original_sop_instance_uid="2.25.99",
            original_sha256="",
            derived_sop_instance_uid=derived.sop_instance_uid,
            profile="",
            reason="",
            serve=serve,
            decided_at=derived.received_at,
            retired_at=derived.received_at,
        )
        with running.database.session() as session:
            session.add(gone)
        keys = {"StudyInstanceUID": STUDY_UID, "SeriesInstanceUID": series_uid(CT[0]), "SOPInstanceUID": "2.25.99"}
        got = get(running.port, identifier("IMAGE", **keys), CT_AS_RECEIVED)
        if serve == "derived":
            assert got.counts == (None, 1, 0, 0)
            assert [one.sop_instance_uid for one in got.received] == [derived.sop_instance_uid]
        else:
            assert got.counts == (None, 0, 1, 0)
            assert got.failed_uids == ["2.25.99"]
            assert got.received == []
        assert len(came(get(running.port, STUDY, CT_AS_RECEIVED))) == len(CT)


@pytest.mark.parametrize("place", ["spool", "archive"])
def test_objects_whose_volume_is_away_fail_and_are_served_again_when_it_is_back(tmp_path: Path, place: str):
    with gateway(tmp_path) as running:
        if place == "archive":
            archive(running, drop_spool=True)
        before = [instance.state for instance in running.instances()]
        folder = running.settings.data_dir / place
        aside = folder.rename(folder.with_name("aside"))
        folder.mkdir()
        assert get(running.port, STUDY, CT_AS_RECEIVED).counts == (None, 0, len(CT), 0)
        folder.rmdir()
        aside.rename(folder)
        assert [instance.state for instance in running.instances()] == before
        assert audits(running) == []
        assert came(get(running.port, STUDY, CT_AS_RECEIVED)) == datasets(CT)


def test_a_damaged_cached_copy_is_told_of_and_the_container_gives_the_object(tmp_path: Path):
    with gateway(tmp_path) as running:
        archive(running, drop_spool=False)
        instance = running.instances()[2]
        running.spool.path(str(instance.spool_name)).write_bytes(b"not what it was")
        got = get(running.port, STUDY, CT_AS_RECEIVED)
        assert came(got) == datasets(CT)
        assert audits(running) == [("copy_damaged", instance.sop_instance_uid)]


def test_an_object_that_is_archived_and_evicted_after_it_was_located_is_found_again(tmp_path: Path):
    """The first answers are slow: what was located in the spool lies in a container when its turn comes."""
    with gateway(tmp_path, ct_series(40, 32)) as running:
        moved: list[bool] = []

        def archive_meanwhile(_: Any) -> int:
            if not moved:
                moved.append(True)
                archive(running, drop_spool=True)
            return 0

        got = get(running.port, STUDY, CT_AS_RECEIVED, answer=archive_meanwhile)
        assert got.counts == (None, 40, 0, 0)
        assert came(got) == datasets(ct_series(40, 32))
        assert not [event for event in audits(running) if event[0] == "quarantined"]


def test_reading_a_cached_copy_keeps_it_in_the_cache(tmp_path: Path):
    with gateway(tmp_path) as running:
        archive(running, drop_spool=False)
        before = {instance.id: instance.last_read_at for instance in running.instances()}
        get(running.port, identifier("IMAGE", SOPInstanceUID=CT[0].sop_instance_uid), CT_AS_RECEIVED)
        read_now = [instance for instance in running.instances() if instance.last_read_at > before[instance.id]]
        assert [instance.sop_instance_uid for instance in read_now] == [CT[0].sop_instance_uid]


@pytest.mark.parametrize("where", ["in the spool", "in a container only"])
def test_a_large_object_comes_back_from_disk(tmp_path: Path, where: str):
    large = multi_frame(80)
    keys = identifier("IMAGE", SOPInstanceUID=large.sop_instance_uid)
    with gateway(tmp_path, [large], large_object_bytes=1024**2) as running:
        assert len(large.dataset) > 0
        if where != "in the spool":
            archive(running, drop_spool=True)
        got = get(running.port, keys, [(large.sop_class_uid, [large.transfer_syntax_uid])])
        native = get(running.port, keys, [(large.sop_class_uid, [IMPLICIT_LITTLE])])
    assert came(got) == datasets([large])
    assert came(native)[large.sop_instance_uid] == to_native(large.dataset, large.transfer_syntax_uid, IMPLICIT_LITTLE)


def audits(running: Running) -> list[tuple[str, str | None]]:
    with running.database.reading() as session:
        return [(event.kind, event.sop_instance_uid) for event in session.scalars(select(AuditEvent))]
