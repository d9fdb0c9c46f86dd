"""`thinfilm bench index`: how fast a large index answers C-FIND, and takes in objects beside a small one."""

import datetime as dt
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from thinfilm_gateway.bench.made_index import STUDY_INSTANCES, fill, made_object, made_sha256, made_study, made_uid
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.find import Query, Root, find
from thinfilm_gateway.index.ingest import Received, register_all
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.models import Instance
from thinfilm_gateway.progress import step

SMALL, LARGE = 10_000, 1_000_000
BATCH, BATCHES = 8, 100
QUERIES = 31

_ARRIVING = 10_000_000  # the number of the first study that arrives, beyond all that are made


class NotEmpty(Exception):
    """The database given holds objects already; the message is one sentence."""


@dataclass(frozen=True)
class Row:
    """One measurement: the median of so many times, in milliseconds, and the longest."""

    instances: int
    case: str
    times: int
    median_ms: float
    longest_ms: float


@dataclass(frozen=True)
class Figures:
    """What one run measured. ingest_ratio: objects a second entered into the large index, of those into the small."""

    database: str
    rows: tuple[Row, ...]
    ingest_ratio: float

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        rows = [asdict(row) for row in self.rows]
        return {"database": self.database, "rows": rows, "ingest_ratio": self.ingest_ratio}

    def table(self) -> Table:
        """Return the same for people."""
        title = f"The index on {self.database}; the large one takes in {self.ingest_ratio:.2f} x as fast as the small"
        table = Table(title=title, box=None, pad_edge=False, title_justify="left")
        table.add_column("instances", justify="right")
        table.add_column("case")
        for column in ("times", "median ms", "longest ms"):
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(
                f"{row.instances:,}", row.case, str(row.times), f"{row.median_ms:.2f}", f"{row.longest_ms:.2f}"
            )
        return table


def run(console: Console, database_url: str = "", instances: int = LARGE) -> Figures:
    """Measure the empty database at database_url, or an SQLite file of one's own where that is empty.

    Rows are made for `instances` objects; there are no files behind them. Raises NotEmpty, UnusableIndex.
    """
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as folder:
        database = Database(database_url or f"sqlite:///{Path(folder) / 'index.sqlite'}")
        try:
            database.upgrade()
            with database.reading() as session:
                if session.scalar(select(func.count()).select_from(select(Instance.id).limit(1).subquery())):
                    raise NotEmpty("The database given to measure has objects in it; name an empty one.")
            return _measured(console, database, instances)
        finally:
            database.dispose()


def _measured(console: Console, database: Database, instances: int) -> Figures:
    rows, medians = [], []
    for studies, size in _parts(instances):
        with step(console, f"make the rows of {size:,} instances", len(studies)) as advance:
            fill(database, studies, advance)
        enter = partial(_enter, database, _arriving(_ARRIVING + studies.start))  # other studies each time
        with step(console, "enter objects"):
            times = _times([enter] * BATCHES)
        rows.append(_row(size, f"enter {BATCH} objects, durably", times))
        medians.append(rows[-1].median_ms)
        with step(console, "find studies"):
            for case, queries in _queries(studies).items():
                rows.append(_row(size, case, _times([partial(_find, database, query) for query in queries])))
    name = "SQLite" if database.is_sqlite else "PostgreSQL"
    return Figures(name, tuple(rows), round(medians[0] / medians[1], 3))


def _parts(instances: int) -> tuple[tuple[range, int], ...]:
    """Return the studies to make for a small index, then for a large one, and the instances there are after each.

    Between them is room for the keys of what is entered in between.
    """
    small, large = min(SMALL, instances) // STUDY_INSTANCES, instances // STUDY_INSTANCES
    return (
        (range(small), small * STUDY_INSTANCES),
        (range(small + BATCH * BATCHES, large + BATCH * BATCHES), large * STUDY_INSTANCES),
    )


def _row(instances: int, case: str, times: list[float]) -> Row:
    median, longest = (round(1000 * value, 2) for value in (statistics.median(times), max(times)))
    return Row(instances, case, len(times), median, longest)


def _times(work: Sequence[Callable[[], None]]) -> list[float]:
    times = []
    for each in work:
        begin = time.perf_counter()
        each()
        times.append(time.perf_counter() - begin)
    return times


def _find(database: Database, query: Query) -> None:
    with database.reading() as session:
        if not any(True for _ in find(session, query)):
            raise AssertionError(f"The index does not find what was made for it: {dict(query.keys)}.")


def _queries(studies: range) -> dict[str, list[Query]]:
    """Return what a viewer asks, by case, each time of another of these studies."""
    asked = {"PatientName": "", "StudyDate": "", "StudyDescription": "", "ModalitiesInStudy": "",
             "NumberOfStudyRelatedInstances": ""}  # fmt: skip
    chosen = [made_study(studies[number * len(studies) // QUERIES]) for number in range(QUERIES)]

    def of(keys: Mapping[str, str]) -> Query:
        return Query(Level.STUDY, Root.STUDY, {**asked, **keys})

    return {
        "patient's name with a wild card, within a week": [
            of({"PatientName": f"{str(each.PatientName)[:5]}*", "StudyDate": _week(each.StudyDate)}) for each in chosen
        ],
        "Study Instance UID": [of({"StudyInstanceUID": each.StudyInstanceUID}) for each in chosen],
        "Accession Number": [of({"AccessionNumber": each.AccessionNumber}) for each in chosen],
    }


def _week(date: str) -> str:
    first = dt.datetime.strptime(date, "%Y%m%d").replace(tzinfo=dt.UTC)
    return f"{first:%Y%m%d}-{first + dt.timedelta(days=6):%Y%m%d}"


def _arriving(first_study: int) -> Iterator[Received]:
    """Yield objects of new studies without end."""
    now = dt.datetime.now(dt.UTC)
    for number, place in ((study, place) for study in itertools.count(first_study) for place in range(STUDY_INSTANCES)):
        attributes = made_object(number, place)
        attributes.SOPInstanceUID, attributes.SOPClassUID = made_uid(number, place), CTImageStorage
        yield Received(
            attributes=attributes,
            sop_instance_uid=made_uid(number, place),
            sop_class_uid=CTImageStorage,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            sha256=made_sha256(number, place),
            dataset_bytes=1 << 19,
            dataset_offset=512,
            spool_name=f"bench-{number}-{place}",
            sender_ae_title="BENCH",
            sender_address="127.0.0.1",
            received_at=now,
        )


def _enter(database: Database, arriving: Iterator[Received]) -> None:
    register_all(database, list(itertools.islice(arriving, BATCH)), dt.timedelta(hours=1))
