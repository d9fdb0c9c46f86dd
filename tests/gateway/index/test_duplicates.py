"""Other content under a SOP Instance UID that is there already: what each policy makes of it, on both databases."""

from dataclasses import replace

import pytest
from sqlalchemy import delete, select, update

from support.received import EARLY, QUIET, received
from thinfilm_gateway.config import Duplicates
from thinfilm_gateway.dicom.values import text
from thinfilm_gateway.index import duplicates
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.find import Query, Root, find
from thinfilm_gateway.index.ingest import Outcome, Received, register_all
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.locate import locate
from thinfilm_gateway.index.models import Instance, Job
from thinfilm_gateway.index.status import summary


def revisions(database: Database) -> list[tuple[int, bool, str]]:
    with database.reading() as session:
        return [(one.revision, one.current, one.sha256) for one in duplicates.revisions(session)]


def events(database: Database) -> list[tuple[str, str]]:
    with database.reading() as session:
        return [(one.kind, one.detail) for one in duplicates.events(session)]


def served(database: Database, sop_instance_uid: str) -> list[str]:
    """Return the SHA-256 of what a C-GET of this UID returns."""
    with database.reading() as session:
        return [one.location.sha256 for one in locate(session, Level.IMAGE, {"SOPInstanceUID": sop_instance_uid})]


def found_studies(database: Database) -> set[str]:
    with database.reading() as session:
        matches = find(session, Query(Level.STUDY, Root.STUDY, {"StudyInstanceUID": ""}))
        return {str(match.values["StudyInstanceUID"]) for match in matches}


def in_another_study(first: Received) -> Received:
    return received(b"in another study", SOPInstanceUID=first.sop_instance_uid)


@pytest.mark.parametrize("at_once", [True, False])
def test_the_newest_version_is_served_and_the_others_are_kept_and_listed(database: Database, at_once: bool) -> None:
    first = received(b"first")
    second, third = received(b"second", first.attributes), received(b"third", first.attributes)
    batches = [[first, second, third]] if at_once else [[first], [second], [third]]
    outcomes = [outcome for batch in batches for outcome in register_all(database, batch, QUIET, duplicates="version")]
    assert outcomes == [Outcome.STORED, Outcome.CONFLICT, Outcome.CONFLICT]
    assert revisions(database) == [(1, False, first.sha256), (2, False, second.sha256), (3, True, third.sha256)]
    assert served(database, first.sop_instance_uid) == [third.sha256]
    assert [kind for kind, _ in events(database)] == ["content_conflict"] * 2
    assert "which is served from now on" in events(database)[0][1]
    with database.reading() as session:
        assert (summary(session).instances, summary(session).conflicts) == (3, 2)


def test_an_older_version_that_comes_again_is_known_and_changes_nothing(database: Database) -> None:
    first = received(b"first")
    second = received(b"second", first.attributes)
    register_all(database, [first, second], QUIET, duplicates="version")
    again = replace(first, spool_name="again")
    assert register_all(database, [again], QUIET, duplicates="version") == [Outcome.IDENTICAL]
    assert served(database, first.sop_instance_uid) == [second.sha256]


def test_a_version_does_not_take_the_place_of_what_is_committed(database: Database) -> None:
    first = received(b"first")
    register_all(database, [first], QUIET)
    with database.session() as session:
        session.execute(update(Instance).values(committed_at=EARLY))
    second = received(b"second", first.attributes)
    assert register_all(database, [second], QUIET, duplicates="version") == [Outcome.CONFLICT]
    assert revisions(database) == [(1, True, first.sha256), (2, False, second.sha256)]
    assert served(database, first.sop_instance_uid) == [first.sha256]
    assert "not served" in events(database)[0][1]


def test_a_revision_after_one_that_is_gone_gets_a_number_of_its_own(database: Database) -> None:
    first = received(b"first")
    second, third = received(b"second", first.attributes), received(b"third", first.attributes)
    register_all(database, [first, second], QUIET)
    with database.session() as session:
        session.execute(delete(Instance).where(Instance.revision == 1))
    assert register_all(database, [third], QUIET) == [Outcome.CONFLICT]
    assert [(revision, sha256) for revision, _, sha256 in revisions(database)] == [
        (2, second.sha256),
        (3, third.sha256),
    ]


def test_a_version_in_another_study_is_found_there_and_the_first_is_kept(database: Database) -> None:
    first = received(b"first")
    moved = in_another_study(first)
    register_all(database, [first], QUIET, duplicates="version")
    assert register_all(database, [moved], QUIET, duplicates="version") == [Outcome.CONFLICT]
    assert [kind for kind, _ in events(database)] == ["relational_mismatch"]
    assert found_studies(database) == {text(moved.attributes, "StudyInstanceUID")}
    with database.reading() as session:
        listed = duplicates.revisions(session)
        jobs = session.scalars(select(Job.series_pk)).all()
    assert [one.study_instance_uid for one in listed] == [
        text(one.attributes, "StudyInstanceUID") for one in (first, moved)
    ]
    assert len(jobs) == 2, "both are compressed, each in its series"


@pytest.mark.parametrize(("elsewhere", "kind"), [(False, "content_conflict"), (True, "relational_mismatch")])
def test_other_content_is_rejected_and_noted(database: Database, elsewhere: bool, kind: str) -> None:
    first = received(b"first")
    other = in_another_study(first) if elsewhere else received(b"other", first.attributes)
    register_all(database, [first], QUIET, EARLY)
    innocent = received(b"innocent")
    outcomes = register_all(database, [other, innocent, replace(first, spool_name="again")], QUIET, duplicates="reject")
    assert outcomes == [Outcome.REJECTED, Outcome.STORED, Outcome.IDENTICAL]
    with database.reading() as session:
        assert set(session.scalars(select(Instance.sha256))) == {first.sha256, innocent.sha256}
    assert [(one_kind, detail.startswith("Rejected")) for one_kind, detail in events(database)] == [(kind, True)]
    assert revisions(database) == []
    assert served(database, first.sop_instance_uid) == [first.sha256]
    assert found_studies(database) == {text(one.attributes, "StudyInstanceUID") for one in (first, innocent)}


@pytest.mark.parametrize("policy", ["keep-first", "version", "reject"])
def test_only_so_many_contents_are_kept_under_one_uid(database: Database, policy: Duplicates) -> None:
    contents = [received(b"0")]
    contents += [received(b"%d" % number, contents[0].attributes) for number in range(1, 5)]
    outcomes = register_all(database, contents, QUIET, duplicates=policy, maximum_revisions=3)
    again = [replace(one, spool_name=f"again {number}") for number, one in enumerate(contents[:3])]
    if policy == "reject":
        assert outcomes == [Outcome.STORED, *[Outcome.REJECTED] * 4]
        return
    assert outcomes == [Outcome.STORED, *[Outcome.CONFLICT] * 2, *[Outcome.SURPLUS] * 2]
    assert [sha256 for _, _, sha256 in revisions(database)] == [one.sha256 for one in contents[:3]]
    assert [detail.startswith("Rejected") for _, detail in events(database)] == [True, True, False, False]
    assert register_all(database, again, QUIET, duplicates=policy, maximum_revisions=1) == [Outcome.IDENTICAL] * 3
    assert register_all(database, contents[3:4], QUIET, duplicates=policy) == [Outcome.CONFLICT], "what is kept stays"


def test_a_policy_that_is_changed_later_changes_nothing_of_what_came_before(database: Database) -> None:
    first = received(b"first")
    contents = [received(content, first.attributes) for content in (b"second", b"third", b"fourth")]
    register_all(database, [first], QUIET)
    for one, policy in zip(contents, ("keep-first", "version", "keep-first"), strict=True):
        register_all(database, [one], QUIET, duplicates=policy)  # type: ignore[arg-type]
    assert [current for _, current, _ in revisions(database)] == [False, False, True, False]


def test_only_the_latest_are_listed(database: Database) -> None:
    for _ in range(3):
        first = received(b"first")
        register_all(database, [first, received(b"second", first.attributes)], QUIET)
    with database.reading() as session:
        assert {one.sop_instance_uid for one in duplicates.revisions(session, limit=1)} == {first.sop_instance_uid}
        assert [one.sop_instance_uid for one in duplicates.events(session, limit=1)] == [first.sop_instance_uid]
