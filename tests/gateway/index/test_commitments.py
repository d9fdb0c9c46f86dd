"""Requests for storage commitment in the index, on both databases: who holds one, and what survives."""

import datetime as dt
import json
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from support.received import EARLY, QUIET, received, series_of
from thinfilm_gateway.index import commitments
from thinfilm_gateway.index.commitments import KEPT_FOR, REPORT_FOR, HeldCommitment, Reference, TooMuchWaits
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import register_all
from thinfilm_gateway.index.models import Commitment, Instance
from thinfilm_gateway.index.states import CommitmentState, ForbiddenTransition, check_commitment

HOLD = dt.timedelta(minutes=2)
REFERENCES = [Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3"), Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.4")]
SECOND = dt.timedelta(seconds=1)


def ask(database: Database, transaction_uid: str = "2.25.1", now: dt.datetime = EARLY) -> HeldCommitment:
    return commitments.request(database, transaction_uid, "MODALITY", REFERENCES, HOLD, now)


def rows(database: Database) -> list[Commitment]:
    with database.reading() as session:
        return list(session.scalars(select(Commitment).order_by(Commitment.id)))


def states(database: Database) -> list[CommitmentState]:
    return [row.state for row in rows(database)]


def test_a_request_is_held_until_its_holder_is_late(database: Database) -> None:
    asked = ask(database)
    assert asked.references == tuple(REFERENCES)
    assert commitments.claim_due(database, HOLD, EARLY + HOLD - SECOND) is None
    taken = commitments.claim_due(database, HOLD, EARLY + HOLD)
    assert taken is not None
    assert (taken.pk, taken.references, taken.attempts) == (asked.pk, asked.references, 2)
    assert commitments.claim_due(database, HOLD, EARLY + HOLD) is None


def test_who_is_late_changes_nothing(database: Database) -> None:
    late = ask(database)
    assert commitments.claim_due(database, HOLD, EARLY + HOLD) is not None
    with database.session() as session:
        assert commitments.hold_on(session, late, HOLD) is None
        assert commitments.record_outcome(session, late, [None, None]) is None
        commitments.put_off(session, late, "It is late.", EARLY)
        commitments.put_off(session, late, "It is late.", EARLY + 2 * REPORT_FOR)
        commitments.release(session, late)
    (row,) = rows(database)
    assert (row.state, row.error, row.not_before) == (CommitmentState.REQUESTED, None, EARLY + 2 * HOLD)


def test_a_report_that_was_taken_from_who_is_late_counts_for_who_has_it_now(database: Database) -> None:
    asked = ask(database)
    with database.session() as session:
        late = commitments.record_outcome(session, asked, [None, None])
    now = commitments.claim_due(database, HOLD, EARLY + HOLD)
    assert late is not None
    assert now is not None
    with database.session() as session:
        assert not commitments.record_report(session, late)
        assert commitments.record_report(session, now)
    assert states(database) == [CommitmentState.REPORTED]


def test_of_many_who_look_for_what_is_due_each_gets_another(database: Database) -> None:
    for number in range(8):
        ask(database, f"2.25.{number}")
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda _: commitments.claim_due(database, HOLD, EARLY + HOLD), range(24)))
    taken = [claim.pk for claim in claims if claim is not None]
    assert len(taken) == len(set(taken))
    while (claim := commitments.claim_due(database, HOLD, EARLY + HOLD)) is not None:
        taken.append(claim.pk)
    assert sorted(taken) == [row.id for row in rows(database)]


def test_requests_of_one_transaction_at_once_are_told_apart(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: ask(database), range(8)))
    assert sorted(held.is_repeated for held in asked) == [False] + [True] * 7
    assert [row.repetition for row in sorted(rows(database), key=lambda row: row.repetition)] == list(range(1, 9))


def test_an_outcome_marks_what_was_committed_once_and_stays_for_the_report(database: Database) -> None:
    first, second = series_of(2)
    other = received(b"other", first.attributes)
    register_all(database, [first, second, other], QUIET)
    references = [Reference(one.sop_class_uid, one.sop_instance_uid) for one in (first, second)]
    held = commitments.request(database, "2.25.1", "MODALITY", references, HOLD, EARLY)
    with database.session() as session:
        examined = commitments.record_outcome(session, held, [None, 0x0110], EARLY)
    assert examined is not None
    assert examined.failure_reasons == (None, 0x0110)

    def committed_at() -> list[dt.datetime | None]:
        with database.reading() as session:
            return list(session.scalars(select(Instance.committed_at).order_by(Instance.id)))

    assert committed_at() == [EARLY, None, EARLY], "every revision is promised"
    again = commitments.claim_due(database, HOLD, EARLY + HOLD)
    assert again is not None
    assert (again.state, again.failure_reasons) == (CommitmentState.EXAMINED, (None, 0x0110))
    later = commitments.request(database, "2.25.2", "MODALITY", references, HOLD, EARLY)
    with database.session() as session:
        commitments.record_outcome(session, later, [None, None], EARLY + SECOND)
    assert committed_at() == [EARLY, EARLY + SECOND, EARLY], "the first promise counts"


def test_a_report_is_put_off_for_longer_each_time_until_its_time_is_over(database: Database) -> None:
    held: HeldCommitment | None = ask(database)
    now, pauses = EARLY, []
    for _ in range(12):
        assert held is not None
        with database.session() as session:
            assert commitments.put_off(session, held, "It is away.", now) is CommitmentState.REQUESTED
        pauses.append(rows(database)[0].not_before - now)
        now = rows(database)[0].not_before
        held = commitments.claim_due(database, HOLD, now)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (5 * SECOND, 600 * SECOND)
    assert held is not None
    with database.session() as session:
        assert commitments.put_off(session, held, "It is away.", EARLY + REPORT_FOR + SECOND) is CommitmentState.FAILED
    assert commitments.claim_due(database, HOLD, EARLY + 2 * REPORT_FOR) is None
    assert (rows(database)[0].error, states(database)) == ("It is away.", [CommitmentState.FAILED])


def test_what_was_given_up_can_be_tried_again_from_the_start(database: Database) -> None:
    held = ask(database)
    long_after = EARLY + REPORT_FOR + SECOND
    with database.session() as session:
        commitments.put_off(session, held, "It is away.", long_after)
        assert commitments.retry_failed(session, long_after) == 1
        assert commitments.retry_failed(session, long_after) == 0
    again = commitments.claim_due(database, HOLD, long_after)
    assert again is not None
    assert (again.state, again.attempts, again.requested_at) == (CommitmentState.REQUESTED, 1, long_after)


def test_only_what_was_finished_long_ago_is_forgotten(database: Database) -> None:
    for number, finished_at in enumerate((EARLY - KEPT_FOR - SECOND, EARLY, None)):
        held = ask(database, f"2.25.{number}")
        if finished_at is not None:
            with database.session() as session:
                examined = commitments.record_outcome(session, held, [None, None])
                assert examined is not None
                assert commitments.record_report(session, examined, finished_at)
    with database.session() as session:
        assert commitments.forget(session, EARLY - KEPT_FOR) == 1
    assert [row.transaction_uid for row in rows(database)] == ["2.25.1", "2.25.2"]


def test_a_state_cannot_be_skipped() -> None:
    with pytest.raises(ForbiddenTransition, match="from requested to reported"):
        check_commitment(CommitmentState.REQUESTED, CommitmentState.REPORTED)


def many(number: int) -> list[Reference]:
    """So many references, as different from each other as UIDs of modalities are."""
    made = (f"1.2.826.0.1.3680043.2.1125.{zlib.crc32(b'%d' % one)}{one}" for one in range(number))
    return [Reference("1.2.840.10008.5.1.4.1.1.2", uid) for uid in made]


def test_what_was_asked_is_kept_short_and_only_until_it_is_reported(database: Database) -> None:
    references = many(10_000)
    asked = commitments.request(database, "2.25.9", "MODALITY", references, HOLD, EARLY)
    assert asked.references == tuple(references)
    (row,) = rows(database)
    assert len(row.referenced) < sum(len(uid) for _, uid in references) / 2
    with database.session() as session:
        examined = commitments.record_outcome(session, asked, [None, 0x0112] * 5000, EARLY)
        assert examined is not None
    taken = commitments.claim_due(database, HOLD, EARLY + HOLD)
    assert taken is not None
    assert taken.references == tuple(references)
    assert taken.failure_reasons == (None, 0x0112) * 5000
    with database.session() as session:
        assert commitments.record_report(session, taken, EARLY)
    (row,) = rows(database)
    assert len(row.referenced) + len(row.failure_reasons or "") < 100
    assert ask(database, "2.25.9").is_repeated


def test_a_request_of_an_earlier_version_is_read_as_it_was_written(database: Database) -> None:
    ask(database)
    with database.session() as session:
        (row,) = session.scalars(select(Commitment))
        row.referenced, row.failure_reasons = json.dumps(REFERENCES), "[0, 272]"
    held = commitments.claim_due(database, HOLD, EARLY + HOLD)
    assert held is not None
    assert (held.references, held.failure_reasons) == (tuple(REFERENCES), (None, 272))


def test_requests_that_nobody_takes_the_report_of_take_no_more_room_than_there_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "WAITING_BYTES_OF_A_PEER", 150_000)
    monkeypatch.setattr(commitments, "WAITING_BYTES", 400_000)

    def refused(ae_title: str) -> str | None:
        for number in range(100):
            uid = f"2.25.{ae_title}.{number}"
            try:
                commitments.request(database, uid, ae_title, many(2000), HOLD, EARLY)
            except TooMuchWaits as error:
                return str(error)
        return None

    assert refused("1") == "1 has not taken the reports of too many requests."
    assert len(rows(database)) > 1
    assert refused("2") == "2 has not taken the reports of too many requests."  # that of one is not that of others
    for ae_title in "345":
        assert refused(ae_title)
    assert refused("6") == "Too many requests wait for their reports to be taken."
    held = commitments.claim_due(database, HOLD, EARLY + HOLD)
    assert held is not None
    with database.session() as session:
        examined = commitments.record_outcome(session, held, [None] * 2000, EARLY)
        assert examined is not None
        assert commitments.record_report(session, examined, EARLY)
    commitments.request(database, "2.25.7", held.ae_title, many(1000), HOLD, EARLY)
