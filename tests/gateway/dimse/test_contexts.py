"""Negotiation: every object in every transfer syntax, and the services by name."""

import pytest
from pynetdicom import AE, build_context, build_role
from pynetdicom.sop_class import _STORAGE_CLASSES

from support import dcmtk
from support.datasets import bundled_files
from support.receiver import running_receiver
from thinfilm_gateway.dimse import contexts

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
MPEG2 = "1.2.840.10008.1.2.4.100"
HTJ2K = "1.2.840.10008.1.2.4.201"
PRIVATE = "1.3.6.1.4.1.9590.100.1.99"


def answer(
    abstract_syntax: str, *transfer_syntaxes: str, roles: contexts.Roles | None = None
) -> tuple[int | None, list[str]]:
    """Propose one context; return its result and transfer syntax."""
    proposed = contexts.Proposed(1, abstract_syntax, transfer_syntaxes)
    (context,) = contexts.negotiate([proposed], {abstract_syntax: roles} if roles else {})
    return context.result, [str(one) for one in context.transfer_syntax]


def test_every_storage_class_of_the_standard_is_storage() -> None:
    assert all(map(contexts.is_storage, _STORAGE_CLASSES.values()))


@pytest.mark.parametrize(
    "abstract_syntax",
    [
        pytest.param("1.2.840.10008.5.1.4.1.1.6", id="retired: Ultrasound Image Storage"),
        pytest.param("1.2.840.10008.5.1.4.1.1.12.3", id="retired: X-Ray Angiographic Bi-Plane Image Storage"),
        pytest.param("1.2.840.10008.5.1.4.1.1.999.1", id="of a later standard"),
        pytest.param("1.3.46.670589.11.0.0.12.1", id="private"),
        pytest.param("2.25.1234567890", id="made up"),
    ],
)
def test_classes_that_are_retired_private_or_unknown_are_storage(abstract_syntax: str) -> None:
    assert contexts.is_storage(abstract_syntax)


@pytest.mark.parametrize(
    "abstract_syntax",
    [
        pytest.param("1.2.840.10008.1.1", id="Verification"),
        pytest.param("1.2.840.10008.5.1.4.1.2.2.1", id="Study Root FIND"),
        pytest.param("1.2.840.10008.5.1.4.1.2.3.1", id="retired: Patient/Study Only FIND"),
        pytest.param("1.2.840.10008.5.1.4.31", id="Modality Worklist"),
        pytest.param("1.2.840.10008.1.20.1", id="Storage Commitment"),
        pytest.param("1.2.840.10008.1.3.10", id="Media Storage Directory"),
        pytest.param("1.2.840.10008.5.1.4.38.1", id="Hanging Protocol Storage, which has no study"),
        pytest.param("1.2.840.10008.1.2.1", id="a transfer syntax"),
        pytest.param("1.2.840.10008.3.1.1.1", id="the application context"),
    ],
)
def test_what_is_no_object_of_a_study_is_not_storage(abstract_syntax: str) -> None:
    assert not contexts.is_storage(abstract_syntax)


def test_the_first_transfer_syntax_of_the_sender_is_chosen_for_objects() -> None:
    assert answer(CT_IMAGE, HTJ2K, JPEG, EXPLICIT) == (contexts.ACCEPTED, [HTJ2K])


def test_our_first_transfer_syntax_is_chosen_for_services() -> None:
    assert answer(contexts.VERIFICATION, JPEG, IMPLICIT, EXPLICIT) == (contexts.ACCEPTED, [EXPLICIT])


def test_a_service_in_a_transfer_syntax_that_we_do_not_know_is_rejected_for_it() -> None:
    assert answer(contexts.VERIFICATION, JPEG) == (contexts.TRANSFER_SYNTAXES_NOT_SUPPORTED, [JPEG])


def test_only_services_that_are_named_are_supported() -> None:
    assert answer("1.2.840.10008.5.1.4.31", EXPLICIT) == (contexts.ABSTRACT_SYNTAX_NOT_SUPPORTED, [EXPLICIT])


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        pytest.param([[JPEG, EXPLICIT, IMPLICIT]], [EXPLICIT], id="Explicit, which keeps private VRs"),
        pytest.param([[IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN]], [EXPLICIT], id="pynetdicom's default"),
        pytest.param([[JPEG, BIG_ENDIAN, IMPLICIT]], [IMPLICIT], id="else Implicit"),
        pytest.param([[HTJ2K, JPEG]], [HTJ2K], id="else what was offered"),
        pytest.param([[JPEG]], [JPEG], id="one that was offered alone"),
        pytest.param([[JPEG, EXPLICIT], [EXPLICIT]], [JPEG, EXPLICIT], id="one native context is enough"),
        pytest.param([[JPEG, EXPLICIT], [IMPLICIT]], [EXPLICIT, IMPLICIT], id="Implicit alone is not"),
        pytest.param([[JPEG, EXPLICIT], [JPEG, HTJ2K, EXPLICIT]], [EXPLICIT, JPEG], id="the next takes another"),
        pytest.param([[JPEG], [JPEG, HTJ2K], [IMPLICIT, JPEG]], [JPEG, HTJ2K, IMPLICIT], id="in any order"),
        pytest.param([[EXPLICIT, IMPLICIT], [EXPLICIT, IMPLICIT]], [EXPLICIT, IMPLICIT], id="both native ones"),
    ],
)
def test_where_a_peer_takes_objects_some_context_of_each_class_can_send_every_object(
    offers: list[list[str]], chosen: list[str]
) -> None:
    proposed = [contexts.Proposed(number, CT_IMAGE, tuple(offered)) for number, offered in enumerate(offers)]
    negotiated = contexts.negotiate(proposed, {CT_IMAGE: contexts.Roles(scu=False, scp=True)})
    assert [context.transfer_syntax for context in negotiated] == [[one] for one in chosen]


def test_video_which_cannot_be_decoded_is_sent_as_video_where_a_peer_takes_it() -> None:
    video = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    proposed = [contexts.Proposed(1, video, (EXPLICIT, MPEG2, JPEG)), contexts.Proposed(3, video, (JPEG, EXPLICIT))]
    negotiated = contexts.negotiate(proposed, {video: contexts.Roles(scu=False, scp=True)})
    assert [context.transfer_syntax for context in negotiated] == [[MPEG2], [EXPLICIT]]


def test_a_peer_that_may_not_get_is_a_sender_whatever_it_proposes_to_be() -> None:
    proposed = [contexts.Proposed(1, CT_IMAGE, (JPEG, EXPLICIT))]
    roles = {CT_IMAGE: contexts.Roles(scu=True, scp=True)}
    (context,) = contexts.negotiate(proposed, roles, allowed={"store"})
    assert (context.transfer_syntax, context.as_scu, context.as_scp) == ([JPEG], False, True)


def test_a_peer_gets_every_object_context_that_it_asks_for(tmp_path) -> None:
    asked = [(CT_IMAGE, IMPLICIT), (CT_IMAGE, JPEG), (CT_IMAGE, PRIVATE), (PRIVATE, HTJ2K), ("1.2.3.4", EXPLICIT)]
    with running_receiver(tmp_path) as receiver:
        association = AE().associate("127.0.0.1", receiver.port, [build_context(*pair) for pair in asked])
        accepted = [(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts]
        association.release()
    assert accepted == asked


def test_a_peer_that_names_a_class_several_times_gets_the_first_syntax_of_each(tmp_path) -> None:
    asked = [build_context(CT_IMAGE, [JPEG]), build_context(CT_IMAGE, [EXPLICIT, JPEG, IMPLICIT])]
    with running_receiver(tmp_path) as receiver:
        association = AE().associate("127.0.0.1", receiver.port, asked)
        accepted = [context.transfer_syntax for context in association.accepted_contexts]
        association.release()
    assert accepted == [[JPEG], [EXPLICIT]]


def test_a_peer_may_be_provider_for_objects_as_c_get_needs_it(tmp_path) -> None:
    asked = [build_context(CT_IMAGE), build_context(PRIVATE), build_context("1.2.840.10008.5.1.4.1.1.4")]
    roles = [build_role(CT_IMAGE, scp_role=True), build_role(PRIVATE, scu_role=True, scp_role=True)]
    with running_receiver(tmp_path) as receiver:
        association = AE().associate("127.0.0.1", receiver.port, asked, ext_neg=roles)
        accepted = [(context.as_scu, context.as_scp) for context in association.accepted_contexts]
        association.release()
    assert accepted == [(False, True), (True, True), (True, False)]


def test_all_128_contexts_of_a_request_are_answered(tmp_path) -> None:
    asked = [build_context(f"1.2.3.{number}", [EXPLICIT, JPEG]) for number in range(128)]
    with running_receiver(tmp_path) as receiver:
        association = AE().associate("127.0.0.1", receiver.port, asked)
        assert len(association.accepted_contexts) == 128
        association.release()


def test_storescu_and_its_one_context_for_each_transfer_syntax_are_understood(tmp_path) -> None:
    (file,) = [path for path in bundled_files() if path.name == "MR_small_RLE.dcm"]
    with running_receiver(tmp_path) as receiver:
        dcmtk.storescu(receiver.port, [file], "-xr").check()
        dcmtk.storescu(receiver.port, [file], "-xr", "+C").check()
        (row,) = receiver.instances()
        assert row.transfer_syntax_uid == "1.2.840.10008.1.2.5"
