"""`thinfilm status`: what is kept, what waits, and what needs a hand."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy.orm import Session

from thinfilm_gateway import counts, data_folder, health
from thinfilm_gateway.config import Settings
from thinfilm_gateway.data_folder import Room
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index import heartbeats, holdings, scrub_passes, volumes
from thinfilm_gateway.index import status as index_status
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.heartbeats import Beat
from thinfilm_gateway.index.holdings import UnusedContainer
from thinfilm_gateway.index.savings import Savings, Share
from thinfilm_gateway.index.scrub_passes import Scrubbed
from thinfilm_gateway.index.status import Problem, Summary
from thinfilm_gateway.policy import lossless


@dataclass(frozen=True)
class Status:
    """The state of a gateway, running or not.

    warnings: what is wrong, what harms most first. problems: at most 100 of each kind, the latest first.
    scrub: how far the reading of everything has come. unused: containers that are listed to go.
    workers: those that live. hurry: a sentence while a backlog costs compression.
    """

    summary: Summary
    savings: Savings
    warnings: tuple[HealthWarning, ...]
    problems: tuple[Problem, ...]
    scrub: Scrubbed
    unused: tuple[UnusedContainer, ...]
    workers: tuple[Beat, ...]
    room: Room
    hurry: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        return (
            self.summary.to_json()
            | asdict(self.room)
            | {
                "savings": self.savings.to_json(),
                "scrub": self.scrub.to_json(),
                "unused_containers": [
                    {"key": one.key, "size_bytes": one.size_bytes, "since": one.since and one.since.isoformat()}
                    for one in self.unused
                ],
                "hurry": self.hurry,
                "workers": [
                    {"name": beat.name, "kind": beat.kind, "queues": beat.queues, "since": beat.started_at.isoformat()}
                    for beat in self.workers
                ],
                "warnings": [asdict(warning) for warning in self.warnings],
                "problems": [asdict(problem) for problem in self.problems],
            }
        )


def status(settings: Settings) -> Status:
    """Read the state out of the index. Raises UnusableDataFolder, UnusableIndex."""
    with reading(settings) as session:
        counted = counts.count(session)
        summary = counted.summary
        problems = tuple(index_status.problems(session))
        hurry = lossless.hurry(summary.jobs_due, settings.backlog_jobs)
        room = data_folder.room(settings, volumes.known(session))
        warnings = tuple(health.warnings(settings, session, room))
        workers = tuple(heartbeats.workers(heartbeats.living(session, dt.datetime.now(dt.UTC))))
        scrub = scrub_passes.scrubbed(session)
        unused = tuple(holdings.unused_containers(session))
        return Status(summary, counted.savings, warnings, problems, scrub, unused, workers, room, hurry)


@contextlib.contextmanager
def reading(settings: Settings) -> Iterator[Session]:
    """Open the index of a gateway, running or not, to read in it. Raises UnusableDataFolder, UnusableIndex."""
    data_folder.require(settings.data_dir)
    database = Database(settings.index_url)
    try:
        database.check()
        with database.reading() as session:
            yield session
    finally:
        database.dispose()


def _savings_rows(savings: Savings) -> dict[str, str]:
    twice = f"{savings.waiting_bytes:,} of originals beside what was derived of them, until their time is over; "
    return {
        "bytes": _savings_text(savings.total),
        **{f"  {name or 'no modality'}": _savings_text(share) for name, share in savings.by_modality.items()},
        **{f"  {name}": _savings_text(share) for name, share in savings.by_codec.items()},
        "kept twice": f"{twice}{savings.cached_bytes:,} more in the spool for fast retrieval, until room is wanted",
    }


def _savings_text(share: Share) -> str:
    ratio = "" if share.ratio is None else f", {share.ratio:.2f} times smaller"
    return f"{share.received_bytes:,} received, {share.kept_bytes:,} kept{ratio}"


def _scrub_text(scrub: Scrubbed) -> str:
    told = []
    if scrub.share is not None:
        told.append(f"{scrub.share:.0%} of the pass under way is read")
    if scrub.whole_at is not None:
        told.append(f"all was read last by {scrub.whole_at:%Y-%m-%d %H:%M} UTC, {scrub.damages} damages")
    return "; ".join(told) or "nothing was read yet"


def render(result: Status) -> RenderableType:
    """Return the same for a terminal."""
    summary = result.summary
    rows = {
        "kept": f"{summary.instances} instances, {summary.series} series, {summary.studies} studies",
        "patients": str(summary.patients),
        "received": f"{summary.received} instances wait to be compressed",
        "archived": f"{summary.archived} instances in {summary.containers} containers",
        "as received": f"{summary.as_received} instances were given up",
        "quarantined": f"{summary.quarantined} instances are damaged",
        "conflicts": f"{summary.conflicts} further revisions are kept and not served",
        "lossy": f"{summary.lossy} images are kept lossily, {summary.retired} of them without their original",
        **_savings_rows(result.savings),
        "jobs": f"{summary.jobs_waiting} wait, {summary.jobs_running} run, {summary.jobs_failed} have failed",
        "commitments": f"{summary.commitments_waiting} are to be reported, {summary.commitments_failed} were given up",
    }
    rows["scrub"] = _scrub_text(result.scrub)
    if result.unused:
        size = sum(one.size_bytes for one in result.unused)
        rows["unused"] = f"{len(result.unused)} containers of {size:,} bytes go a week after they were listed"
    hosts = {beat.host for beat in result.workers}
    rows["workers"] = f"{len(result.workers)} live, on {len(hosts)} hosts" if hosts else "none lives"
    if result.room.free_bytes is not None:
        rows["free"] = f"{result.room.free_bytes:,} bytes on the disk of the spool"
    if summary.oldest_due:
        rows["due since"] = f"{summary.oldest_due:%Y-%m-%d %H:%M:%S} UTC"
    if result.hurry:
        rows["backlog"] = result.hurry
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    problems = [Text(warning.sentence) for warning in result.warnings]
    problems += [Text(f"{problem.kind} {problem.uid} {problem.reason}") for problem in result.problems]
    return Group(table, Text("\nneeds a hand" if problems else "\nnothing needs a hand"), *problems)
