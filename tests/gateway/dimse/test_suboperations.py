"""What decides in a retrieval: contexts, proposals, counts. No network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinfilm_gateway.archive.objects import ObjectLocation
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.destinations import batches
from thinfilm_gateway.dimse.suboperations import NoContext, StoreContext, Tally, choose_context, proposals
from thinfilm_gateway.index.locate import InstanceLocation
from thinfilm_gateway.index.states import InstanceState

EXPLICIT, IMPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"

kinds = st.tuples(st.integers(1, 90).map("1.2.{}".format), st.sampled_from((EXPLICIT, IMPLICIT, JPEG, "1.2.3")))
store_statuses = st.sampled_from((0x0000, 0xB000, 0xB006, 0xB007, 0xA700, 0xA900, 0xC000, 0x0110, 0x0122))


def contexts(*pairs: tuple[str, str]) -> list[StoreContext]:
    return [StoreContext(2 * number + 1, *pair) for number, pair in enumerate(pairs)]


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ([(CT, IMPLICIT), (CT, EXPLICIT), (CT, JPEG)], JPEG),
        ([(CT, IMPLICIT), (CT, EXPLICIT), (MR, JPEG)], EXPLICIT),
        ([(CT, IMPLICIT), (MR, EXPLICIT)], IMPLICIT),
    ],
)
def test_the_received_syntax_comes_first_then_explicit_then_implicit(accepted: list[tuple[str, str]], chosen: str):
    context = choose_context(CT, JPEG, contexts(*accepted))
    assert (context.sop_class_uid, context.transfer_syntax_uid) == (CT, chosen)


@pytest.mark.parametrize(
    ("accepted", "reason"),
    [
        ([], "has the role of SCP for no storage class"),
        ([(MR, EXPLICIT)], f"CT Image Storage.*{CT}"),
        ([(CT, "1.2.840.10008.1.2.4.70")], f"CT Image Storage.*JPEG Baseline.*{CT}.*{JPEG}"),
    ],
)
def test_without_a_fitting_context_the_reason_names_what_is_missing(accepted: list[tuple[str, str]], reason: str):
    with pytest.raises(NoContext, match=reason):
        choose_context(CT, JPEG, contexts(*accepted))


def test_the_received_syntax_is_proposed_alone_and_the_native_ones_beside_it():
    assert proposals([(CT, JPEG), (CT, EXPLICIT), (CT, JPEG), (MR, IMPLICIT)]) == [
        (CT, (JPEG,)),
        (CT, (EXPLICIT,)),
        (CT, (IMPLICIT,)),
        (MR, (IMPLICIT,)),
        (MR, (EXPLICIT,)),
    ]


@given(st.lists(kinds, max_size=200))
def test_batches_keep_every_object_and_order_and_fit_into_an_association(wanted: list[tuple[str, str]]):
    nowhere = ObjectLocation(None, None, None, 0, 0, "")
    instances = [
        InstanceLocation(number, f"1.{number}", *kind, "1.9", InstanceState.RECEIVED, nowhere)
        for number, kind in enumerate(wanted)
    ]
    divided = list(batches(instances))
    assert [instance for batch in divided for instance in batch] == instances
    for batch in divided:
        assert batch
        assert len(proposals((one.sop_class_uid, one.transfer_syntax_uid) for one in batch)) <= 128


@given(st.lists(store_statuses, max_size=30), st.integers(0, 5))
def test_the_counts_always_add_up_and_the_final_status_tells_the_truth(answers: list[int], left: int):
    tally = Tally(len(answers) + left)
    for number, answer in enumerate(answers):
        tally.record(f"1.{number}", answer)
    failed = [answer for answer in answers if answer and answer >> 12 != 0xB]
    assert tally.remaining == left
    assert tally.completed == answers.count(0)
    assert tally.failed == len(failed) == len(tally.failed_sop_instance_uids)
    assert tally.completed + tally.failed + tally.warning + tally.remaining == len(answers) + left
    if not any(answers):
        assert tally.final_status == status.SUCCESS
    elif len(failed) == len(answers):
        assert tally.final_status == status.UNABLE_TO_PERFORM_SUBOPERATIONS
    else:
        assert tally.final_status == status.SUBOPERATIONS_COMPLETE_WITH_FAILURES
