"""Keep archived images lossily, by the rule for their series: derive, pack, store, prove, then tell the index.

The lossless originals stay as they are; `retire` lets them go later.
"""

import datetime as dt
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import structlog

from thinfilm_gateway.archive.container.pack import ReadyFrames, Source, pack
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.lossy import LossyFiles, derive_files
from thinfilm_gateway.archive.store import new_key
from thinfilm_gateway.background import usable_cores
from thinfilm_gateway.index import audit, derivations
from thinfilm_gateway.index.derivations import Archived, Decided, Derived, Measured, StoredContainer
from thinfilm_gateway.index.jobs import ClaimedJob
from thinfilm_gateway.policy.choice import Outcome
from thinfilm_gateway.policy.lossy import LossyTreatment
from thinfilm_gateway.policy.rules import LossyRule
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.compress import check_archive, discard, portions
from thinfilm_workers.lease import Lease
from thinfilm_workers.proof import NotProven, prove
from thinfilm_workers.receipt import read_file

log = structlog.get_logger()


def recompress_series(context: Context, job: ClaimedJob, lease: Lease) -> None:
    """Decide what becomes of all images of the job's series that a rule is due for, and do it.

    Raises NotProven if a container did not read back, LeaseLost, DamagedContainer for an archive that is damaged, and
    whatever files and database raise. What was committed before stays; a further run does what is left.
    """
    assert job.series_pk is not None
    now = dt.datetime.now(dt.UTC)
    with context.database.reading() as session:
        rule = derivations.rule_of(session, context.settings.lossy, job.series_pk)
        due = derivations.originals_due(session, job.series_pk, rule, now) if rule else []
    for portion in portions(due):
        assert rule is not None
        check_archive(context)
        with tempfile.TemporaryDirectory(dir=context.work_dir) as folder:
            _keep_lossily(context, portion, rule, Path(folder), lease, job.series_pk, now)


def _keep_lossily(
    context: Context,
    originals: Sequence[Archived],
    rule: LossyRule,
    folder: Path,
    lease: Lease,
    series_pk: int,
    now: dt.datetime,
) -> None:
    """Derive objects from the originals into one new container, and enter what was decided."""
    sources = _restore(context, originals, folder, lease)
    hard, where = context.treatment.preset, context.treatment.device
    treatment = LossyTreatment(rule.codec, rule.profile, rule.max_error, rule.ratio, hard, where)
    files = derive_files(sources, folder, treatment, usable_cores(), lease.check, now)
    lossy = [number for number, decision in enumerate(files.decisions) if decision.derived_uid]
    stored = _store(context, files, lossy, lease) if lossy else None
    was_recorded = False
    try:
        derived = _derived(files, lossy, stored) if stored else {}
        decisions = [
            Decided(original, derived.get(number), decision.ceiling, decision.reason)
            for number, (original, decision) in enumerate(zip(originals, files.decisions, strict=True))
        ]
        if stored:
            prove(context, stored.key, [one.received.sha256 for one in derived.values()], lease)
        with context.database.session() as session:
            lease.confirm(session)
            needed = derivations.record(session, series_pk, rule, decisions, stored, now)
            was_recorded = True
    except BaseException as error:
        # The sweep would keep it, as it has objects that the index does not know. Where the commit itself failed, that
        # may have gone through unseen.
        if stored and not was_recorded:
            discard(context, stored.key)
        if isinstance(error, NotProven):
            with context.database.session() as session:
                audit.record(session, "not_proven", detail=str(error))
        raise
    if stored and not needed:
        discard(context, stored.key)
    log.info("images_kept_lossily", instances=len(lossy), lossless=len(originals) - len(lossy))


def _restore(context: Context, originals: Sequence[Archived], folder: Path, lease: Lease) -> list[Source]:
    """Write the files of the originals as they were received, each proven by its SHA-256."""
    sources: list[Source] = []
    for key, of_container in groupby(originals, key=lambda original: original.container_key):
        with context.store.open(key) as reader:
            container = open_container(reader, key)
            for original in of_container:
                lease.check()
                path = folder / f"{len(sources)}.original"
                with path.open("xb") as file:
                    file.writelines(container.stream(original.entry))
                sources.append(Source(path, original.sop_instance_uid))
    return sources


def _store(context: Context, files: LossyFiles, lossy: Sequence[int], lease: Lease) -> StoredContainer:
    """Pack the derived objects and put them into the store."""
    key = new_key()
    packed = context.work_dir / key.rpartition("/")[2]
    sources = [replace(files.sources[number], name=files.decisions[number].derived_uid) for number in lossy]
    ready = _renumbered(files.ready, lossy)
    try:
        report = pack(sources, packed, context.treatment, lambda count: lease.check(), usable_cores(), ready)
        lease.check()
        context.store.put(key, packed)
    finally:
        packed.unlink(missing_ok=True)
    shares = tuple(entry.stored_bytes for entry in report.entries)
    return StoredContainer(key, report.archive_bytes, report.codecs, shares)


def _renumbered(ready: Sequence[ReadyFrames], lossy: Sequence[int]) -> list[ReadyFrames]:
    """Return the same streams, of sources that are numbered without those that stay lossless."""
    place = {number: index for index, number in enumerate(lossy)}
    return [
        replace(frames, slices=tuple(replace(piece, source=place[piece.source]) for piece in frames.slices))
        for frames in ready
    ]


def _derived(files: LossyFiles, lossy: Sequence[int], stored: StoredContainer) -> dict[int, Derived]:
    """Return the derived objects by the number of their original, in the order of their entries."""
    found = {}
    for entry, number in enumerate(lossy):
        outcome = files.decisions[number].outcome
        assert outcome is not None, "It was derived."
        received = read_file(files.sources[number].path, None)
        found[number] = Derived(received, entry, stored.shares[entry], _measured(outcome))
    return found


def _measured(outcome: Outcome) -> Measured:
    verdict = outcome.verdict
    return Measured(
        codec=outcome.codec_id,
        setting=outcome.setting,
        ratio_allocated=outcome.ratio_allocated,
        ratio_stored=outcome.ratio_stored,
        max_error=outcome.max_error,
        rmse=outcome.rmse,
        guarded=json.dumps({"ours": asdict(verdict.ours), "reference": asdict(verdict.reference)}),
    )
