"""Promise P4: nothing is kept lossily but by a rule, and the original goes only once its time is over."""

import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from sqlalchemy import delete, update

from support.datasets import (
    CT_IMAGE,
    EXPLICIT_BIG,
    US_IMAGE,
    EncodedDataSet,
    ct_series,
    finish,
    image_attributes,
    instance,
    mr_series,
    phantom,
    structured_report,
)
from support.house import House, flip_byte, make_due
from support.lossy_codec import Quantised
from thinfilm_codecs import registry
from thinfilm_gateway.archive.container.format import DerivationNote
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.config import Duplicates
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.decisions import decisions
from thinfilm_gateway.index.find import Match, Query, Root, find
from thinfilm_gateway.index.ingest import Outcome
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.locate import locate
from thinfilm_gateway.index.models import Container, Derivation, Instance, Study
from thinfilm_gateway.index.status import problems, summary
from thinfilm_gateway.policy.ceilings import Ceiling, profile
from thinfilm_gateway.policy.rules import LossyRule, Serve
from thinfilm_workers.jobs import recompress
from thinfilm_workers.jobs.lossy_rules import apply_lossy_rules
from thinfilm_workers.jobs.orphans import UNUSED_FOR
from thinfilm_workers.jobs.reindex import reindex
from thinfilm_workers.jobs.sweep import sweep, tidy

CT_AT_ONCE = LossyRule(modality="CT", delay_days=0, keep_original_days=0)
CT_KEPT = LossyRule(modality="CT", delay_days=0, keep_original_days=30)


@pytest.fixture(autouse=True)
def quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._LOSSY, "near_lossless", Quantised())


def apply(house: House) -> int:
    """Do all that the rules ask for by now."""
    apply_lossy_rules(house.context)
    return house.work()


def derivations(house: House) -> list[Derivation]:
    return house.rows(Derivation)


def served(house: House) -> set[str]:
    return {row.sop_instance_uid for row in house.instances() if row.current}


def uids(series: list[EncodedDataSet]) -> set[str]:
    return {each.sop_instance_uid for each in series}


def archived(house: House, series: list[EncodedDataSet]) -> list[EncodedDataSet]:
    house.receive(series)
    house.work()
    return series


def derived_note(house: House, instance: Instance) -> DerivationNote | None:
    """Return what its container notes of an instance."""
    keys = {container.id: container.key for container in house.containers()}
    with house.context.store.open(keys[instance.container_pk]) as reader:
        return open_container(reader).manifest.entries[instance.container_entry].derived


def rebuild(build_house: Callable[..., House], url: str, **settings: Any) -> House:
    """Rebuild the index into a database of its own."""
    database = Database(url)
    database.upgrade()
    database.dispose()
    rebuilt = build_house(database_url=url, **settings)
    assert reindex(rebuilt.context).damages == ()
    return rebuilt


def read(house: House, instance: Instance) -> pydicom.Dataset:
    """Read an instance from its container alone."""
    keys = {container.id: container.key for container in house.containers()}
    with house.context.store.open(keys[instance.container_pk]) as reader:
        content = b"".join(open_container(reader).stream(instance.container_entry))
    path = house.context.work_dir / "read.dcm"
    path.write_bytes(content)
    found = pydicom.dcmread(path)
    found.pixel_array  # noqa: B018 - reads all of it
    path.unlink()
    return found


def let_time_pass(house: House, days: int) -> None:
    """Let all decisions be older by so many days."""
    passed = dt.timedelta(days=days)
    with house.context.database.session() as session:
        for row in session.query(Derivation):
            row.decided_at -= passed
            row.retire_at = row.retire_at and row.retire_at - passed


def forget_derived(house: House) -> str:
    """Remove the one derived object from the index, as if another gateway had made it; return its UID."""
    uid = str(derivations(house)[0].derived_sop_instance_uid)
    with house.context.database.session() as session:
        session.execute(delete(Instance).where(Instance.sop_instance_uid == uid))
    return uid


def test_without_a_rule_nothing_is_ever_lossy(house: House) -> None:
    series = archived(house, ct_series(3))
    assert apply(house) == 0
    assert derivations(house) == []
    house.assert_archived(series)


def test_an_image_whose_bytes_a_viewer_orders_otherwise_is_decided_to_stay(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(LossyRule(modality="US", delay_days=0, keep_original_days=0),))
    samples = np.clip(phantom(64, 64, noise=20.0) / 8 + 128, 0, 255).astype(np.uint8)
    words = samples.view("<u2").astype(">u2").tobytes()
    module = {**image_attributes(samples), "PixelData": ("OW", words)}
    series = archived(house, [finish({**instance(US_IMAGE, "US"), **module}, EXPLICIT_BIG)])
    apply(house)
    apply(house)
    house.assert_archived(series)
    assert served(house) == uids(series)
    (row,) = derivations(house)
    assert (row.derived_sop_instance_uid, row.retired_at) == (None, None)
    assert row.reason.startswith("Its samples lie in another order of bytes")


def test_an_image_becomes_a_derived_object_and_the_original_stays_and_is_served(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(CT_KEPT,))
    series = archived(house, ct_series(3))
    assert apply(house) == 1
    house.assert_archived(series)
    assert served(house) == uids(series)
    rows = derivations(house)
    assert {row.original_sop_instance_uid for row in rows} == uids(series)
    instances = {row.sop_instance_uid: row for row in house.instances()}
    for row in rows:
        derived = instances[str(row.derived_sop_instance_uid)]
        found = read(house, derived)
        assert found.SOPInstanceUID == derived.sop_instance_uid
        assert found.SourceImageSequence[-1].ReferencedSOPInstanceUID == row.original_sop_instance_uid
        assert found.LossyImageCompression == "01"
        assert derived.sop_class_uid == CT_IMAGE
        assert 0 < row.ratio_stored < row.ratio_allocated <= 5
        assert (row.codec, row.serve, row.retired_at) == ("near_lossless", "derived", None)
        assert "not above JPEG's" in row.reason
        assert row.guarded is not None
    assert len(house.audits("kept_lossily")) == 3
    assert house.stray_files() == []


@pytest.mark.parametrize("blur", [0, 3000])
def test_a_decision_names_what_was_allowed(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch, blur: int
) -> None:
    monkeypatch.setitem(registry._LOSSY, "near_lossless", Quantised(blur=blur))
    house = build_house(lossy=(CT_KEPT.model_copy(update={"max_error": 12}),))
    (original,) = archived(house, ct_series(1))
    apply(house)
    (row,) = derivations(house)
    ceiling = profile("esr-strict").ceiling("CT", "")
    assert isinstance(ceiling, Ceiling)
    allowed = (row.profile, row.ceiling, row.citation, row.error_bound)
    assert allowed == ("esr-strict", ceiling.ratio, ceiling.citation, 12)
    (event,) = house.audits("kept_lossless" if blur else "kept_lossily")
    assert event.detail.endswith(f" Profile esr-strict, ceiling 5 ({ceiling.citation}), no error above 12.")
    with house.context.database.reading() as session:
        (told,) = decisions(session)
    assert (told.profile, told.ceiling, told.citation, told.error_bound) == allowed
    if not blur:
        sha256 = hashlib.sha256(original.dataset).hexdigest()
        expected = DerivationNote(
            original.sop_instance_uid, sha256, row.codec, row.setting, row.ratio_allocated, *allowed
        )
        assert [derived_note(house, one) for one in house.instances()] == [None, expected]


def test_a_second_run_decides_nothing_anew(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_KEPT,))
    archived(house, ct_series(3))
    apply(house)
    before = [(row.id, row.derived_sop_instance_uid) for row in derivations(house)]
    assert apply(house) == 0
    assert [(row.id, row.derived_sop_instance_uid) for row in derivations(house)] == before


@pytest.mark.parametrize(
    "rule",
    [
        LossyRule(modality="CT", delay_days=1, keep_original_days=0),
        LossyRule(modality="MR", delay_days=0, keep_original_days=0),
        LossyRule(modality="CT", body_part="HEAD", delay_days=0, keep_original_days=0),
    ],
)
def test_what_no_rule_is_due_for_stays_as_it_is(build_house: Callable[..., House], rule: LossyRule) -> None:
    house = build_house(lossy=(rule,))
    archived(house, ct_series(2))
    assert apply(house) == 0


def test_an_image_for_which_no_setting_passes_stays_lossless_and_the_reason_is_kept(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._LOSSY, "near_lossless", Quantised(blur=3000))
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(2))
    apply(house)
    assert [row.derived_sop_instance_uid for row in derivations(house)] == [None, None]
    assert all("No setting of near_lossless may be taken." in row.reason for row in derivations(house))
    (event, _) = house.audits("kept_lossless")
    assert event.detail.startswith("Kept lossless: No setting")
    assert apply(house) == 0
    house.assert_archived(series)
    assert len(house.containers()) == 1


def test_after_its_time_the_derived_object_is_served_and_the_original_goes(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(3))
    assert apply(house) == 1
    assert apply(house) == 1
    assert served(house) == {row.derived_sop_instance_uid for row in derivations(house)}
    assert len(house.instances()) == 3
    assert all(row.retired_at for row in derivations(house))
    assert len(house.audits("original_retired")) == 3
    assert list(house.context.spool.names()) == []
    assert len(house.containers()) == 2
    tidy(house.context, dt.timedelta(0))
    assert [container.codecs for container in house.containers()] == ["near_lossless"]
    assert house.stray_files() == []
    assert not uids(series) & {row.sop_instance_uid for row in house.instances()}


def test_an_original_stays_while_its_time_is_not_over(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_KEPT,))
    series = archived(house, ct_series(1))
    apply(house)
    assert apply(house) == 0
    house.assert_archived(series)


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (LossyRule(modality="MR", delay_days=0, keep_original_days=0),),
        (LossyRule(modality="CT", delay_days=0, keep_original_days=3650),),
    ],
)
@pytest.mark.parametrize("is_asked_for", [False, True])
def test_an_original_stays_when_its_rule_was_withdrawn_or_keeps_it_longer_by_now(
    build_house: Callable[..., House], rules: tuple[LossyRule, ...], is_asked_for: bool
) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(2))
    apply(house)
    if is_asked_for:
        apply_lossy_rules(house.context)
    changed = build_house(lossy=rules)
    assert apply(changed) == (1 if is_asked_for else 0)
    changed.assert_archived(series)
    assert served(changed) == uids(series)
    restored = build_house(lossy=(CT_AT_ONCE,))
    apply(restored)
    assert served(restored).isdisjoint(uids(series))


def test_a_rule_that_keeps_originals_shorter_by_now_does_not_count_for_what_was_decided(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(CT_KEPT,))
    series = archived(house, ct_series(1))
    apply(house)
    changed = build_house(lossy=(CT_AT_ONCE,))
    assert apply(changed) == 0
    assert served(changed) == uids(series)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("committed_first", [False, True])
def test_a_committed_original_goes_only_by_declared_retention(
    build_house: Callable[..., House], declared: bool, committed_first: bool
) -> None:
    rule = LossyRule(modality="CT", delay_days=0, keep_original_days=0, declared_retention=declared)
    house = build_house(lossy=(rule,))
    series = archived(house, ct_series(1))

    def commit() -> None:
        with house.context.database.session() as session:
            session.execute(update(Instance).values(committed_at=dt.datetime.now(dt.UTC)))

    if committed_first:
        commit()
    apply(house)
    if not committed_first:
        commit()
    apply(house)
    if declared:
        assert served(house) == {derivations(house)[0].derived_sop_instance_uid}
    else:
        assert served(house) == uids(series)
        house.assert_archived(series)
        assert len(derivations(house)) == (0 if committed_first else 1)


def test_an_original_stays_when_its_derived_object_is_damaged(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(2))
    apply(house)
    (container,) = [container for container in house.containers() if container.codecs == "near_lossless"]
    flip_byte(house.container_path(container.key), container.size_bytes // 2)
    apply(house)
    house.assert_archived(series)
    assert uids(series) <= served(house)
    assert house.audits("original_retired") == [] or len(house.audits("quarantined")) >= 1


def test_an_image_stays_lossless_when_another_object_has_the_derived_uid(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(1))
    apply(house)
    uid = forget_derived(house)
    with house.context.database.session() as session:
        session.execute(delete(Derivation))
    others = archived(house, [structured_report()._replace(sop_instance_uid=uid)])
    containers = len(house.containers())
    apply(house)
    apply(house)
    (row,) = derivations(house)
    assert (row.derived_sop_instance_uid, row.retired_at) == (None, None)
    assert row.reason == f"Another object has the derived UID, {uid}."
    assert row.reason in house.audits("kept_lossless")[0].detail
    house.assert_archived(series + others)
    assert served(house) == uids(series + others)
    assert len(house.containers()) == containers
    assert house.stray_files() == []


def test_an_original_stays_when_another_object_took_the_place_of_the_derived_one(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(1))
    apply(house)
    others = archived(house, [structured_report()._replace(sop_instance_uid=forget_derived(house))])
    assert apply(house) == 0
    house.assert_archived(series + others)
    assert house.audits("original_retired") == []


def test_an_original_stays_while_another_revision_of_the_derived_object_is_served(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(CT_KEPT,), duplicates="version")
    series = archived(house, ct_series(1))
    apply(house)
    uid = str(derivations(house)[0].derived_sop_instance_uid)
    others = archived(house, [structured_report()._replace(sop_instance_uid=uid)])
    let_time_pass(house, days=31)
    assert apply(house) == 0
    house.assert_archived(series + others)
    assert served(house) == uids(series + others)


def test_no_container_is_left_when_anything_goes_wrong_before_its_objects_are_recorded(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("The disk is broken.")

    house = build_house(lossy=(CT_KEPT,))
    series = archived(house, ct_series(1))
    with monkeypatch.context() as patched:
        patched.setattr(recompress, "prove", broken)
        apply(house)
    assert derivations(house) == []
    assert house.stray_files() == []
    make_due(house)
    house.work()
    assert len(derivations(house)) == 1
    house.assert_archived(series)


def test_an_archive_that_is_not_mounted_is_waited_for_and_nothing_is_called_damaged(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(2))
    apply(house)
    archive = house.context.settings.archive_dir
    away = archive.rename(archive.with_name("unmounted"))
    archive.mkdir()
    apply(house)
    assert {str(row.state) for row in house.instances()} == {"archived"}
    assert served(house) == uids(series)
    archive.rmdir()
    away.rename(archive)
    make_due(house)
    house.work()
    assert served(house).isdisjoint(uids(series))


def test_an_original_that_comes_again_is_served_again(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    series = archived(house, ct_series(2))
    apply(house)
    apply(house)
    archived(house, series)
    assert served(house) == uids(series)
    house.assert_archived(series)
    assert all(row.retired_at is None for row in derivations(house))
    apply(house)
    assert served(house) == {row.derived_sop_instance_uid for row in derivations(house)}


@pytest.mark.parametrize("duplicates", ["keep-first", "version", "reject"])
def test_other_content_under_the_uid_of_an_original_that_is_gone_is_a_duplicate(
    build_house: Callable[..., House], duplicates: Duplicates
) -> None:
    house = build_house(lossy=(CT_AT_ONCE,), duplicates=duplicates)
    (original,) = archived(house, ct_series(1))
    apply(house)
    apply(house)
    (row,) = derivations(house)
    derived, retired_at = str(row.derived_sop_instance_uid), row.retired_at
    assert retired_at is not None
    other = original._replace(dataset=original.dataset[:-2] + b"\1\2")
    (outcome,) = house.receive([other])
    house.work()
    assert outcome is (Outcome.REJECTED if duplicates == "reject" else Outcome.CONFLICT)
    assert len(house.audits("content_conflict")) == 1
    assert derivations(house)[0].retired_at == retired_at
    assert served(house) == ({original.sop_instance_uid} if duplicates == "version" else {derived})
    assert len(house.instances()) == (1 if duplicates == "reject" else 2)
    assert [row.revision for row in house.instances()] == ([1] if duplicates == "reject" else [1, 2])
    assert house.receive([original]) == [Outcome.STORED]  # and the original itself is served again
    house.work()
    assert [row.sha256 for row in house.instances() if row.current] == [hashlib.sha256(original.dataset).hexdigest()]
    assert derivations(house)[0].retired_at is None
    assert len(house.audits("content_conflict")) == 1


def test_an_original_that_comes_again_stays_for_as_long_as_the_first_time(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_KEPT,))
    series = archived(house, ct_series(1))
    apply(house)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=40)
    with house.context.database.session() as session:
        session.execute(update(Derivation).values(decided_at=past, retire_at=past + dt.timedelta(days=30)))
    apply(house)
    assert derivations(house)[0].retired_at is not None
    archived(house, series)
    assert apply(house) == 0
    assert served(house) == uids(series)
    left = (derivations(house)[0].retire_at or past) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29) < left <= dt.timedelta(days=30)


def test_the_sweep_gives_received_images_a_job_while_a_lossy_job_waits(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_KEPT,))
    archived(house, ct_series(2))
    apply_lossy_rules(house.context)
    late = ct_series(3)[2:]
    house.receive(late)
    sweep(house.context)
    house.work()
    house.assert_archived(late)


def test_a_repeated_derivation_gives_the_same_object(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_KEPT,))
    archived(house, mr_series(1) + ct_series(2))
    apply(house)
    first = [(row.sop_instance_uid, row.sha256) for row in house.instances() if not row.current]
    with house.context.database.session() as session:
        for row in session.query(Derivation):
            session.delete(row)
    apply(house)
    assert [(row.sop_instance_uid, row.sha256) for row in house.instances() if not row.current] == first
    assert len(derivations(house)) == 2
    assert house.stray_files() == []


def located(house: House, level: Level, **keys: str) -> list[tuple[str, bool]]:
    """Return what a retrieve request finds: the UIDs, and whether nothing is to be sent for them."""
    with house.context.database.reading() as session:
        return [(one.sop_instance_uid, one.is_gone) for one in locate(session, level, keys)]


def found(house: House, level: Level, **keys: str) -> list[Match]:
    with house.context.database.reading() as session:
        return list(find(session, Query(level, Root.STUDY, keys)))


def test_while_the_original_is_kept_both_can_be_retrieved_and_one_is_counted(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(CT_KEPT,))
    (original,) = archived(house, ct_series(1))
    apply(house)
    (row,) = derivations(house)
    derived = str(row.derived_sop_instance_uid)
    study = house.rows(Study)[0].study_instance_uid
    assert located(house, Level.STUDY, StudyInstanceUID=study) == [(original.sop_instance_uid, False)]
    for uid in (original.sop_instance_uid, derived):
        assert located(house, Level.IMAGE, SOPInstanceUID=uid) == [(uid, False)]
    (match,) = found(house, Level.STUDY, NumberOfStudyRelatedInstances="")
    assert match.values["NumberOfStudyRelatedInstances"] == 1
    (match,) = found(house, Level.IMAGE, StudyInstanceUID=study, AlternateRepresentationSequence="")
    assert match.values["SOPInstanceUID"] == original.sop_instance_uid
    assert match.alternate is not None
    assert match.alternate.sop_instance_uid == derived
    assert match.alternate.sop_class_uid == CT_IMAGE
    assert found(house, Level.IMAGE, StudyInstanceUID=study)[0].alternate is None


@pytest.mark.parametrize("serve", ["derived", "failure"])
def test_a_request_for_an_original_that_is_gone_gets_what_its_rule_says(
    build_house: Callable[..., House], serve: Serve
) -> None:
    house = build_house(lossy=(CT_AT_ONCE.model_copy(update={"serve": serve}),))
    (original,) = archived(house, ct_series(1))
    apply(house)
    apply(house)
    derived = str(derivations(house)[0].derived_sop_instance_uid)
    expected = (derived, False) if serve == "derived" else (original.sop_instance_uid, True)
    assert located(house, Level.IMAGE, SOPInstanceUID=original.sop_instance_uid) == [expected]
    both = f"{original.sop_instance_uid}\\{derived}"
    assert set(located(house, Level.IMAGE, SOPInstanceUID=both)) == {(derived, False), expected}
    assert located(house, Level.IMAGE, SOPInstanceUID=derived) == [(derived, False)]
    (match,) = found(house, Level.IMAGE, SOPInstanceUID=original.sop_instance_uid, InstanceAvailability="")
    assert match.values["SOPInstanceUID"] == original.sop_instance_uid
    assert match.values["InstanceAvailability"] == "UNAVAILABLE"
    assert match.alternate is not None
    assert match.alternate.sop_instance_uid == derived
    study = house.rows(Study)[0].study_instance_uid
    assert [one.values["SOPInstanceUID"] for one in found(house, Level.IMAGE, StudyInstanceUID=study)] == [derived]
    (match,) = found(house, Level.STUDY, NumberOfStudyRelatedInstances="")
    assert match.values["NumberOfStudyRelatedInstances"] == 1


@pytest.mark.parametrize("retired", [False, True])
def test_a_rebuilt_index_has_the_map_that_the_derived_objects_tell(
    build_house: Callable[..., House], tmp_path: Path, retired: bool
) -> None:
    rule = CT_AT_ONCE if retired else CT_KEPT
    house = build_house(lossy=(rule,))
    series = archived(house, ct_series(2))
    apply(house)
    if retired:
        apply(house)
        tidy(house.context, dt.timedelta(0))
    before = derivations(house)
    rebuilt = rebuild(build_house, f"sqlite:///{tmp_path / 'rebuilt.sqlite'}", lossy=(rule,))

    def told(row: Derivation) -> tuple[object, ...]:
        return (
            row.original_sop_instance_uid,
            row.original_sha256,
            row.derived_sop_instance_uid,
            row.derived_sha256,
            row.codec,
            row.setting,
            row.ratio_allocated,
            row.profile,
            row.ceiling,
            row.citation,
            row.error_bound,
            row.retired_at is None,
        )

    assert set(map(told, derivations(rebuilt))) == set(map(told, before))
    assert served(rebuilt) == served(house)
    if not retired:
        rebuilt.assert_archived(series)
    assert apply(rebuilt) == 0  # nobody knows any more which originals were committed: they stay


def test_a_received_object_is_not_taken_for_one_that_was_derived_here_however_it_looks(
    build_house: Callable[..., House], tmp_path: Path
) -> None:
    house = build_house(lossy=(CT_KEPT,))
    (original,) = archived(house, ct_series(1))
    apply(house)
    (instance,) = [row for row in house.instances() if not row.current]
    keys = {container.id: container.key for container in house.containers()}
    with house.context.store.open(keys[instance.container_pk]) as reader:
        dataset = bytes(open_container(reader).read_dataset(instance.container_entry))
    derived = EncodedDataSet(dataset, instance.transfer_syntax_uid, instance.sop_class_uid, instance.sop_instance_uid)
    forget_derived(house)
    with house.context.database.session() as session:
        session.execute(delete(Derivation))
    tidy(house.context, dt.timedelta(0))
    with house.context.database.session() as session:
        session.execute(update(Container).values(unused_since=dt.datetime.now(dt.UTC) - 2 * UNUSED_FOR))
    tidy(house.context, dt.timedelta(0))
    archived(house, [derived])
    rebuilt = rebuild(build_house, f"sqlite:///{tmp_path / 'rebuilt.sqlite'}", lossy=(CT_KEPT,))
    assert served(rebuilt) == uids([original, derived])
    assert derivations(rebuilt) == []


def test_an_index_from_before_the_retirement_serves_what_was_derived_since_the_original_is_gone(
    build_house: Callable[..., House],
) -> None:
    house = build_house(lossy=(CT_AT_ONCE,))
    archived(house, ct_series(2))
    apply(house)
    apply(house)
    expected = served(house)
    tidy(house.context, dt.timedelta(0))
    with house.context.database.session() as session:  # what the backup says: both originals wait in the spool
        session.execute(delete(Derivation))
        session.execute(delete(Instance))
        session.execute(delete(Container))
    house.receive(ct_series(2))
    for row in house.instances():
        house.context.spool.remove(str(row.spool_name))
    (other,) = mr_series(1)
    house.spool(other)  # the spool is not away
    house.work()
    tidy(house.context, dt.timedelta(0))
    assert served(house) == expected | {other.sop_instance_uid}
    assert len(derivations(house)) == 2


@pytest.mark.parametrize("duplicates", ["keep-first", "version"])
@pytest.mark.parametrize("comes_again", [False, True])
def test_a_rebuilt_index_serves_the_same_of_what_came_under_the_uid_of_an_original_that_is_gone(
    build_house: Callable[..., House], tmp_path: Path, duplicates: Duplicates, comes_again: bool
) -> None:
    house = build_house(lossy=(CT_AT_ONCE,), duplicates=duplicates)
    (original,) = archived(house, ct_series(1))
    apply(house)
    apply(house)
    tidy(house.context, dt.timedelta(0))
    archived(house, [original._replace(dataset=original.dataset[:-2] + b"\1\2")])
    if comes_again:
        archived(house, [original])

    def told(one: House) -> tuple[object, ...]:
        (row,) = derivations(one)
        return {row.sha256 for row in one.instances() if row.current}, row.retired_at is None

    url = f"sqlite:///{tmp_path / 'rebuilt.sqlite'}"
    assert told(rebuild(build_house, url, lossy=(CT_AT_ONCE,), duplicates=duplicates)) == told(house)


def test_status_tells_how_many_images_are_lossy_and_no_conflict(build_house: Callable[..., House]) -> None:
    house = build_house(lossy=(CT_KEPT,))
    archived(house, ct_series(2))
    apply(house)
    with house.context.database.reading() as session:
        told = summary(session)
        assert problems(session) == []
        reasons = [one.reason for one in decisions(session)]
    assert (told.lossy, told.retired, told.conflicts, told.instances) == (2, 0, 0, 4)
    assert all("not above JPEG's" in reason for reason in reasons)
