"""What other processes do to an index in tests; a spawned process imports it by name."""

import datetime as dt

from support.received import attributes, received
from thinfilm_gateway.config import Duplicates
from thinfilm_gateway.index import jobs
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Outcome, register_all


def upgrade(url: str) -> None:
    """Migrate an index and check it."""
    database = Database(url)
    database.upgrade()
    database.check()
    database.dispose()


def register_shared(url: str, shared: dict[str, str], own: list[str], common: list[str], batch_size: int) -> list[str]:
    """Enter instances of one series in batches: `own`, and `common` ones that others send too; return the outcomes."""
    database = Database(url)
    uids = [uid for pair in zip(own, common, strict=True) for uid in pair]
    objects = [received(uid.encode(), attributes(SOPInstanceUID=uid, **shared)) for uid in uids]
    outcomes: list[Outcome] = []
    for start in range(0, len(objects), batch_size):
        outcomes += register_all(database, objects[start : start + batch_size], dt.timedelta(0))
    database.dispose()
    return [outcome.name for outcome in outcomes]


def register_contents(url: str, sop_instance_uid: str, contents: list[str], duplicates: Duplicates) -> list[str]:
    """Enter objects of one SOP Instance UID one by one, each with a content of its own; return the outcomes."""
    database = Database(url)
    objects = [received(content.encode(), SOPInstanceUID=sop_instance_uid) for content in contents]
    outcomes = [register_all(database, [one], dt.timedelta(0), duplicates=duplicates)[0] for one in objects]
    database.dispose()
    return [outcome.name for outcome in outcomes]


def claim_all(url: str, owner: str) -> list[int]:
    """Claim and finish jobs until none is due; return their ids."""
    database = Database(url)
    done = []
    while True:
        with database.session() as session:
            job = jobs.claim(session, owner, dt.timedelta(minutes=1), [jobs.COMPRESS_CPU])
        if job is None:
            database.dispose()
            return done
        done.append(job.id)
        with database.session() as session:
            assert jobs.finish(session, job.id, owner)
