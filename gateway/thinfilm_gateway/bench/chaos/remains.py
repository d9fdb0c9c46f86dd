"""What a gateway that has settled must not have: rows without files, files without rows, work that never ended."""

from collections.abc import Iterator

from sqlalchemy import select

from thinfilm_gateway.archive import mark
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.models import Container, Instance, Job
from thinfilm_gateway.index.states import InstanceState, JobState


def remains(settings: Settings) -> list[str]:
    """Return a sentence for each half row and file of a gateway that keeps no spool copies and has nothing to do."""
    database = Database(settings.index_url)
    try:
        return [*_half_rows(database), *_half_files(database, settings)]
    finally:
        database.dispose()


def unlisted(settings: Settings) -> list[str]:
    """Return a sentence for each container that nothing needs and that `thinfilm tidy` did not list to go."""
    database = Database(settings.index_url)
    used = select(Instance.id).where(Instance.container_pk == Container.id)
    unused = select(Container.key).where(Container.unused_since.is_(None), ~used.exists())
    try:
        with database.reading() as session:
            return [f"No instance lies in container {key}, and it is not listed." for key in session.scalars(unused)]
    finally:
        database.dispose()


def half_objects(settings: Settings) -> list[str]:
    """Return a sentence for each object that never became whole, of a gateway that was started and receives nothing."""
    return [f"{path} is left half." for path in sorted((settings.spool_dir / "incoming").iterdir())]


def _half_rows(database: Database) -> Iterator[str]:
    with database.reading() as session:
        unfinished = select(Job.id, Job.state, Job.error).where(Job.state != JobState.DONE)
        for number, state, error in session.execute(unfinished):
            yield f"Job {number} is {state}{f': {error}' if error else '.'}"
        outside = select(Instance.sop_instance_uid, Instance.state).where(Instance.state != InstanceState.ARCHIVED)
        for uid, instance_state in session.execute(outside):
            yield f"Instance {uid} is {instance_state}."
        homeless = select(Instance.sop_instance_uid).where(
            Instance.container_pk.is_(None) | Instance.container_entry.is_(None)
        )
        for uid in session.scalars(homeless):
            yield f"Instance {uid} lies in no container."


def _half_files(database: Database, settings: Settings) -> Iterator[str]:
    """Compare what the index names with what lies there, .part files and temporary ones included."""
    spool, archive = settings.spool_dir, settings.archive_dir
    with database.reading() as session:
        sizes = {archive / key: size for key, size in session.execute(select(Container.key, Container.size_bytes))}
        named = {spool / name[:2] / name for name in session.scalars(select(Instance.spool_name)) if name}
    for path in sorted(named):
        if not path.is_file():
            yield f"A row names {path}, which is not there."
    for path, size in sorted(sizes.items()):
        if not path.is_file() or path.stat().st_size != size:
            yield f"A row names {path}, which is not there in its {size} bytes."
    for path in sorted(mark.files_beside(spool) + mark.files_beside(archive)):
        if path not in sizes and path not in named:
            yield f"No row names {path}."
