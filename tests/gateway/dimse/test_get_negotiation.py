"""C-GET with real clients: whatever a client prefers, it gets every object of the classes that it takes."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE, StoragePresentationContexts, build_context, build_role, evt

from support import dcmtk
from support.datasets import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    EncodedDataSet,
    bundled_files,
    ct_series,
    mr_series,
    uid,
)
from support.query_retrieve import GET, gateway_with, get, identifier
from support.receiver import Running
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dimse import status

STUDY_UID = uid("study of every syntax")
STUDY = identifier("STUDY", StudyInstanceUID=STUDY_UID)
JPEG, JPEG_LS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80"
PREFERENCES = [f"+x{letter}" for letter in "=bsyvtumrdi"]
FILES = (
    "CT_small.dcm",  # Explicit, with private elements
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",  # JPEG Baseline
    "JPGExtended.dcm",
    "SC_rgb_jpeg_gdcm.dcm",  # JPEG Lossless
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "MR_small_jp2klossless.dcm",
    "693_J2KI.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_rle_2frame.dcm",
    "test-SR.dcm",
    "rtdose_rle.dcm",
)


def of_one_study(path: Path) -> EncodedDataSet:
    """Read a file, as an object of the study of this module."""
    dataset = dcmread(path)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, uid("series", path.name)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(path.name)
    dataset.PatientID, dataset.PatientName = "T-001", "Doe^Jane"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    header = part10.locate(file.getvalue())
    assert header is not None
    encoded = file.getvalue()[header.dataset_offset :]
    return EncodedDataSet(encoded, header.transfer_syntax_uid, header.sop_class_uid, header.sop_instance_uid)


@pytest.fixture(scope="module")
def objects() -> list[EncodedDataSet]:
    return [of_one_study(path) for path in bundled_files() if path.name in FILES]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, objects: list[EncodedDataSet]) -> Iterator[Running]:
    assert len(objects) == len(FILES)
    with gateway_with(tmp_path_factory.mktemp("gateway"), objects) as running:
        yield running


@pytest.mark.parametrize("option", PREFERENCES)
def test_getscu_gets_every_object_whatever_it_prefers(
    tmp_path: Path, gateway: Running, objects: list[EncodedDataSet], option: str
) -> None:
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY_UID}"]
    dcmtk.getscu(gateway.port, keys, tmp_path, "-S", option).check()
    got = [dcmread(path) for path in tmp_path.iterdir()]
    assert {one.SOPInstanceUID for one in got} == {one.sop_instance_uid for one in objects}
    for one in got:
        if "PixelData" in one:
            assert one.pixel_array.size


def test_the_contexts_that_pynetdicom_proposes_get_every_object_and_explicit_ones_as_they_came(
    gateway: Running, objects: list[EncodedDataSet]
) -> None:
    wanted = {one.sop_class_uid for one in objects}
    proposed = [context for context in StoragePresentationContexts if context.abstract_syntax in wanted]
    got: dict[str, Any] = {}

    def take(event: Any) -> int:
        got[event.request.AffectedSOPInstanceUID] = (event.context.transfer_syntax, event.request.DataSet.getvalue())
        return 0

    association = AE().associate(
        "127.0.0.1",
        gateway.port,
        [build_context(GET["STUDY"]), *proposed],
        ext_neg=[build_role(uid, scp_role=True) for uid in wanted],
        evt_handlers=[(evt.EVT_C_STORE, take)],
    )
    *_, (last, _) = association.send_c_get(STUDY, GET["STUDY"])
    association.release()
    assert last.Status == status.SUCCESS
    assert {syntax for syntax, _ in got.values()} == {EXPLICIT_LITTLE}
    for one in objects:
        if one.transfer_syntax_uid == EXPLICIT_LITTLE:
            assert got[one.sop_instance_uid][1] == one.dataset


def test_a_viewer_with_a_context_for_each_syntax_gets_what_it_names_as_received_and_the_rest_decoded(
    gateway: Running, objects: list[EncodedDataSet]
) -> None:
    contexts = [
        (sop_class, [syntax])
        for sop_class in dict.fromkeys(one.sop_class_uid for one in objects)
        for syntax in (JPEG_LS, JPEG, IMPLICIT_LITTLE)
    ]
    got = get(gateway.port, STUDY, contexts)
    assert got.counts == (None, len(objects), 0, 0)
    came = {one.sop_instance_uid: one.transfer_syntax_uid for one in got.received}
    for one in objects:
        as_received = one.transfer_syntax_uid in (JPEG_LS, JPEG, IMPLICIT_LITTLE)
        assert came[one.sop_instance_uid] == (one.transfer_syntax_uid if as_received else IMPLICIT_LITTLE)


def test_objects_are_stored_over_the_association_over_which_others_are_got(tmp_path: Path) -> None:
    (sent,) = mr_series(1, 32)
    held = ct_series(2, 32)
    with gateway_with(tmp_path, held) as running:
        roles = [build_role(one, scu_role=True, scp_role=True) for one in (CT_IMAGE, sent.sop_class_uid)]
        came: list[str] = []
        association = AE().associate(
            "127.0.0.1",
            running.port,
            [
                build_context(GET["STUDY"]),
                build_context(CT_IMAGE, [JPEG, EXPLICIT_LITTLE, IMPLICIT_LITTLE]),
                build_context(sent.sop_class_uid, [JPEG, EXPLICIT_LITTLE, IMPLICIT_LITTLE]),
            ],
            ext_neg=roles,
            evt_handlers=[(evt.EVT_C_STORE, lambda event: came.append(event.request.AffectedSOPInstanceUID) or 0)],
        )
        study = dcmread(io.BytesIO(held[0].part10())).StudyInstanceUID
        *_, (last, _) = association.send_c_get(identifier("STUDY", StudyInstanceUID=study), GET["STUDY"])
        assert (last.Status, len(came)) == (status.SUCCESS, 2)
        assert association.send_c_store(dcmread(io.BytesIO(sent.part10()))).Status == status.SUCCESS
        association.release()
        assert [running.dataset(row) for row in running.instances()][-1] == sent.dataset


@pytest.mark.parametrize(
    ("contexts", "roles", "comment"),
    [
        pytest.param([(CT_IMAGE, [EXPLICIT_LITTLE])], False, "The peer takes no objects", id="no role selection"),
        pytest.param([(CT_IMAGE, [JPEG])], True, "No context takes CT Image", id="no fitting syntax"),
        pytest.param([("1.2.3", [EXPLICIT_LITTLE])], True, "The peer takes no objects of", id="no such class"),
    ],
)
def test_where_nothing_fits_the_response_says_why(tmp_path: Path, contexts: Any, roles: bool, comment: str) -> None:
    held = ct_series(2, 32)
    study = dcmread(io.BytesIO(held[0].part10())).StudyInstanceUID
    with gateway_with(tmp_path, held) as running:
        got = get(running.port, identifier("STUDY", StudyInstanceUID=study), contexts, roles=roles)
    assert got.status == status.UNABLE_TO_PERFORM_SUBOPERATIONS
    assert got.responses[-1][0].ErrorComment.startswith(comment)
    assert len(got.failed_uids) == 2
