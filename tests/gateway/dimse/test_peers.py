"""Who may do what: titles, addresses, operations, limits, with clients of DCMTK against a live receiver."""

import contextlib
import ipaddress
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom import AE, build_context, build_role
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import encode

from support import dcmtk
from support.datasets import CT_IMAGE, ct_series, patient
from support.query_retrieve import gateway_with
from support.receiver import Running, running_receiver
from support.scu import Answer, StorageUser, store_all
from support.servers import free_port
from thinfilm_gateway.config import OPERATIONS, Peer, Settings
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.peers import Caller, Peers
from thinfilm_gateway.dimse.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    Rejected,
)
from thinfilm_gateway.dimse.tls import UnusableTls, parse_subject

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
WORKLIST = "1.2.840.10008.5.1.4.31"
(CT,) = ct_series(1)
STUDY_KEYS = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={patient()['StudyInstanceUID']}"]

SCANNER = Peer(ae_title="SCANNER", allow=("echo", "store"))
VIEWER = Peer(ae_title="VIEWER", allow=("find", "get"))


def caller(ae_title: str = "CT1", address: str = "10.1.2.3", **others: Any) -> Caller:
    return Caller(ae_title, others.pop("called", "THINFILM"), ipaddress.ip_address(address), **others)


def rejection(settings: Settings, who: Caller) -> tuple[int, int, int]:
    with pytest.raises(Rejected) as caught:
        Peers(settings).operations(who)
    return caught.value.rejection


# Who is let in, decided without a network


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        (Peer(ae_title="CT1"), caller(address="203.0.113.9")),
        (Peer(ae_title="CT1", host="10.1.2.3"), caller()),
        (Peer(ae_title="CT1", host="localhost"), caller(address="127.0.0.1")),
        (Peer(ae_title="CT1", network="10.1.0.0/16"), caller()),
        (Peer(ae_title="CT1", host="10.9.9.9", port=104, network="10.1.2.3"), caller()),
        (Peer(ae_title="CT1", network="2001:db8::/32"), caller(address="2001:db8::7")),
        (Peer(ae_title="CT1", tls=True), caller(encrypted=True)),
        (
            Peer(ae_title="CT1", certificate_subject="CN=ct1, O=Hospital\\, North"),
            caller(
                encrypted=True,
                subject=frozenset(
                    {("commonName", "ct1"), ("organizationName", "Hospital, North"), ("countryName", "CH")}
                ),
            ),
        ),
    ],
)
def test_a_peer_that_is_as_the_settings_say_is_let_in(peer: Peer, who: Caller) -> None:
    assert Peers(Settings(peers=(peer,), unknown_peers="none")).operations(who) == peer.allow


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        (Peer(ae_title="CT2"), caller()),
        (Peer(ae_title="ct1"), caller()),
        (Peer(ae_title="CT1", host="10.1.2.4"), caller()),
        (Peer(ae_title="CT1", host="10.1.2.4"), caller(address="127.0.0.1")),
        (Peer(ae_title="CT1", host="no such host"), caller(address="127.0.0.1")),
        (Peer(ae_title="CT1", host="10.1.2.3", network="10.2.0.0/16"), caller()),
        (Peer(ae_title="CT1", network="10.1.0.0/16"), caller(address="2001:db8::7")),
        (Peer(ae_title="CT1", tls=True), caller()),
        (Peer(ae_title="CT1", certificate_subject="CN=ct1"), caller(encrypted=True)),
        (
            Peer(ae_title="CT1", certificate_subject="CN=ct1"),
            caller(encrypted=True, subject=frozenset({("commonName", "ct2"), ("organizationName", "ct1")})),
        ),
    ],
)
def test_a_peer_that_is_not_as_the_settings_say_is_rejected(peer: Peer, who: Caller) -> None:
    assert rejection(Settings(peers=(peer,)), who) == CALLING_AE_TITLE_NOT_RECOGNIZED


@pytest.mark.parametrize(
    ("unknown_peers", "address", "let_in"),
    [
        ("loopback", "127.0.0.1", True),
        ("loopback", "::1", True),
        ("loopback", "10.1.2.3", False),
        ("all", "10.1.2.3", True),
        ("none", "127.0.0.1", False),
    ],
)
def test_unknown_peers_are_let_in_as_the_settings_say(unknown_peers: Any, address: str, let_in: bool) -> None:
    settings = Settings(unknown_peers=unknown_peers)
    if let_in:
        assert Peers(settings).operations(caller("NOBODY", address)) == OPERATIONS
    else:
        assert rejection(settings, caller("NOBODY", address)) == CALLING_AE_TITLE_NOT_RECOGNIZED


def test_the_addresses_of_peers_are_known_and_those_of_names_once_they_have_called() -> None:
    settings = Settings(
        peers=(
            Peer(ae_title="CT1", host="10.1.2.3"),
            Peer(ae_title="CT2", network="10.9.0.0/16"),
            Peer(ae_title="CT3", host="localhost"),
            Peer(ae_title="CT4"),
        )
    )
    peers = Peers(settings)
    assert [peers.knows(address) for address in ("10.1.2.3", "::ffff:10.1.2.3", "10.9.8.7")] == [True] * 3
    assert [peers.knows(address) for address in ("10.1.2.4", "127.0.0.1", "::1")] == [False] * 3
    peers.operations(caller("CT3", "127.0.0.1"))
    peers.operations(caller("CT4", "10.1.2.4"))
    assert peers.knows("127.0.0.1")
    assert not peers.knows("10.1.2.4")  # whoever claims a title that counts from everywhere


def test_of_several_entries_with_one_title_the_first_that_fits_holds() -> None:
    peers = (
        Peer(ae_title="CT1", host="10.1.2.4", allow=("find",)),
        Peer(ae_title="CT1", host="10.1.2.3", allow=("store",)),
        Peer(ae_title="CT1", allow=("echo",)),
    )
    known = Peers(Settings(peers=peers))
    assert known.operations(caller()) == ("store",)
    assert known.operations(caller(address="10.1.2.5")) == ("echo",)


@pytest.mark.parametrize("subject", ["ct1", "CN=", "=ct1", "CN=ct1,", ","])
def test_a_subject_that_is_none_is_refused_in_one_sentence(subject: str) -> None:
    with pytest.raises(UnusableTls, match=r"^certificate_subject is a list like .* is none\.$"):
        Peers(Settings(peers=(Peer(ae_title="A", certificate_subject=subject),)))


@given(
    st.dictionaries(
        st.sampled_from(["CN", "O", "OU", "L", "ST", "C", "serialNumber", "emailAddress"]),
        st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\"), min_size=1).map(str.strip),
        min_size=1,
    ).filter(lambda attributes: all(attributes.values()))
)
def test_every_subject_can_be_written_into_the_settings(attributes: dict[str, str]) -> None:
    written = ", ".join(f"{name}={value.replace(',', chr(92) + ',')}" for name, value in attributes.items())
    long_names = {"CN": "commonName", "O": "organizationName", "OU": "organizationalUnitName"}
    long_names |= {"L": "localityName", "ST": "stateOrProvinceName", "C": "countryName"}
    assert parse_subject(written) == {(long_names.get(name, name), value) for name, value in attributes.items()}


# Titles and addresses, over the network


def test_another_called_ae_title_is_rejected_and_the_right_one_is_served(tmp_path: Path) -> None:
    with running_receiver(tmp_path, ae_title="KEEPER", check_called_ae_title=True) as receiver:
        assert answer(receiver, called="THINFILM") == CALLED_AE_TITLE_NOT_RECOGNIZED
        assert "Called AE Title Not Recognized" in dcmtk.echoscu(receiver.port, "-v", called="OTHER").output
        dcmtk.echoscu(receiver.port, called="KEEPER").check()


def test_an_unknown_calling_ae_title_is_rejected_and_a_known_one_is_served(tmp_path: Path) -> None:
    with running_receiver(tmp_path, unknown_peers="none", peers=(SCANNER,)) as receiver:
        assert answer(receiver, "OTHER") == CALLING_AE_TITLE_NOT_RECOGNIZED
        output = dcmtk.echoscu(receiver.port, "-v", "-aet", "OTHER").output
        assert "Calling AE Title Not Recognized" in output
        dcmtk.echoscu(receiver.port, "-aet", "SCANNER").check()


def test_a_known_title_from_another_address_is_rejected(tmp_path: Path) -> None:
    peers = (Peer(ae_title="CT1", host="127.0.0.2"), Peer(ae_title="CT2", network="127.0.1.0/24"))
    with running_receiver(tmp_path, dicom_host="0.0.0.0", peers=peers) as receiver:
        assert answer(receiver, "CT1", source="127.0.0.2") is None
        assert answer(receiver, "CT2", source="127.0.1.9") is None
        assert answer(receiver, "CT1", source="127.0.1.9") == CALLING_AE_TITLE_NOT_RECOGNIZED
        assert answer(receiver, "CT2", source="127.0.0.2") == CALLING_AE_TITLE_NOT_RECOGNIZED


# Operations


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with gateway_with(tmp_path, [CT], peers=(SCANNER, VIEWER), unknown_peers="none") as running:
        yield running


def test_a_peer_may_do_what_it_is_allowed_and_nothing_else(receiver: Running, tmp_path: Path) -> None:
    files = [CT.write(tmp_path / "ct.dcm")]
    scanner, viewer = ("-aet", "SCANNER"), ("-aet", "VIEWER")
    got = tmp_path / "got"
    got.mkdir()
    dcmtk.storescu(receiver.port, files, *scanner).check()
    dcmtk.echoscu(receiver.port, *scanner).check()
    assert "Find Response: 1" in dcmtk.findscu(receiver.port, STUDY_KEYS, "-S", "-v", *viewer).check().output
    dcmtk.getscu(receiver.port, STUDY_KEYS, got, "-S", *viewer).check()
    assert len(list(got.iterdir())) == 1

    for refused in (
        dcmtk.findscu(receiver.port, STUDY_KEYS, "-S", *scanner),
        dcmtk.getscu(receiver.port, STUDY_KEYS, got, "-S", *scanner),
        dcmtk.movescu(receiver.port, STUDY_KEYS, "VIEWER", "-S", *scanner),
        dcmtk.movescu(receiver.port, STUDY_KEYS, "VIEWER", "-S", *viewer),
        dcmtk.storescu(receiver.port, files, *viewer),
        dcmtk.echoscu(receiver.port, *viewer),
    ):
        assert "presentation context" in refused.output.lower(), refused.output


def test_contexts_that_the_peer_may_not_use_are_rejected_by_the_user_and_unknown_ones_as_such(
    receiver: Running,
) -> None:
    asked = [build_context(uid) for uid in (CT_IMAGE, VERIFICATION, STUDY_ROOT_FIND, WORKLIST)]
    with associated(receiver, "VIEWER", asked) as association:
        results = {context.abstract_syntax: context.result for context in association.rejected_contexts}
        assert results == {CT_IMAGE: 1, VERIFICATION: 1, WORKLIST: 3}


def test_roles_are_given_as_the_operations_are_allowed(tmp_path: Path) -> None:
    both = [build_role(CT_IMAGE, scu_role=True, scp_role=True)]
    peers = (SCANNER, VIEWER, Peer(ae_title="BOTH"))
    with running_receiver(tmp_path, peers=peers) as receiver:
        roles = {}
        for ae_title in ("SCANNER", "VIEWER", "BOTH"):
            with associated(receiver, ae_title, [build_context(CT_IMAGE)], both) as association:
                (context,) = association.accepted_contexts
                roles[ae_title] = (context.as_scu, context.as_scp)
    assert roles == {"SCANNER": (True, False), "VIEWER": (False, True), "BOTH": (True, True)}


def test_an_object_that_comes_all_the_same_is_answered_0124_and_not_kept(receiver: Running) -> None:
    asked = [build_context(STUDY_ROOT_GET), build_context(CT_IMAGE, CT.transfer_syntax_uid)]
    with associated(receiver, "VIEWER", asked, [build_role(CT_IMAGE, scp_role=True)]) as association:
        assert StorageUser(association).store(CT) == Answer(status.NOT_AUTHORIZED, "")
        assert StorageUser(association).store(CT) == Answer(status.NOT_AUTHORIZED, "")
    assert len(receiver.instances()) == len(receiver.files()) == 1  # the one that it began with


def test_a_query_that_comes_all_the_same_is_answered_0124(receiver: Running) -> None:
    with associated(receiver, "SCANNER", [build_context(CT_IMAGE)]) as association:
        request = C_FIND()
        request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 2, STUDY_ROOT_FIND
        request.Identifier = encoded_identifier()
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, response = association.dimse.get_msg(block=True)
        assert response.Status == status.NOT_AUTHORIZED
        association._reactor_checkpoint.set()


def test_a_move_goes_to_configured_destinations_only(tmp_path: Path) -> None:
    port = free_port()
    peers = (Peer(ae_title="KNOWN", host="127.0.0.1", port=port), Peer(ae_title="LOST", host="no such host", port=104))
    folder = tmp_path / "came"
    folder.mkdir()
    with gateway_with(tmp_path, [CT], peers=peers) as receiver, dcmtk.storescp(port, folder, ae_title="KNOWN"):
        dcmtk.movescu(receiver.port, STUDY_KEYS, "KNOWN", "-S").check()
        unknown = dcmtk.movescu(receiver.port, STUDY_KEYS, "OTHER", "-S", "-d").output
        assert "0xa801" in unknown.lower()
        lost = dcmtk.movescu(receiver.port, STUDY_KEYS, "LOST", "-S", "-d").output
        assert "0xa702" in lost.lower()
    assert len(list(folder.iterdir())) == 1


# Limits


def test_a_host_that_has_its_share_of_associations_is_rejected_for_now_and_others_are_served(tmp_path: Path) -> None:
    verification = [build_context(VERIFICATION)]
    with (
        running_receiver(tmp_path, dicom_host="0.0.0.0", maximum_associations_per_host=2) as receiver,
        associated(receiver, "A", verification),
        associated(receiver, "B", verification),
    ):
        assert answer(receiver, "C") == LOCAL_LIMIT_EXCEEDED
        assert answer(receiver, "C", source="127.0.0.2") is None
        assert "Local Limit Exceeded" in dcmtk.echoscu(receiver.port, "-v").output


def test_a_store_of_an_allowed_peer_is_as_ever(receiver: Running) -> None:
    with associated(receiver, "SCANNER", [build_context(CT_IMAGE, CT.transfer_syntax_uid)]) as association:
        assert StorageUser(association).store(CT) == Answer(status.SUCCESS, "")
    with pytest.raises(AssertionError):
        store_all(receiver.port, [CT])  # under a title that is unknown


@contextlib.contextmanager
def associated(receiver: Running, ae_title: str, contexts: list[Any], roles: list[Any] | None = None) -> Iterator[Any]:
    entity = AE(ae_title)
    entity.dimse_timeout = 30
    association = entity.associate("127.0.0.1", receiver.port, contexts, "THINFILM", ext_neg=roles or [])
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def answer(
    receiver: Running, ae_title: str = "CALLER", *, called: str = "THINFILM", source: str = "127.0.0.1"
) -> tuple[int, int, int] | None:
    """Request an association; return result, source and reason of its rejection, None if it was accepted."""
    contexts = [build_context(VERIFICATION)]
    association = AE(ae_title).associate("127.0.0.1", receiver.port, contexts, called, bind_address=(source, 0))
    if association.is_established:
        association.release()
        return None
    assert association.is_rejected
    said = association.acceptor.primitive
    return said.result, said.result_source, said.diagnostic


def encoded_identifier() -> BytesIO:
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    return BytesIO(encode(keys, True, True) or b"")
