"""What each series takes in the archive, and by which codecs."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Container, Instance, Series, Study
from thinfilm_gateway.index.states import InstanceState


@dataclass(frozen=True)
class KeptSeries:
    """A series in the archive.

    stored_bytes: its instances' shares of their containers, or their data sets where they stay as received.
    codecs: ids of the codecs of its pixels; none where nothing was coded as pixels.
    in_spool: instances of which a spool copy lies there still.
    """

    study_instance_uid: str
    series_instance_uid: str
    instances: int
    archived: int
    in_spool: int
    stored_bytes: int
    codecs: tuple[str, ...]


def kept_series(session: Session) -> list[KeptSeries]:
    """Return all series, by study and series UID; every revision of an instance counts."""
    uids = (Study.study_instance_uid, Series.series_instance_uid)
    rows = session.execute(
        select(
            *uids,
            func.count(Instance.id),
            func.count(Instance.id).filter(Instance.state == InstanceState.ARCHIVED),
            func.count(Instance.spool_name),
            func.sum(func.coalesce(Instance.stored_bytes, Instance.dataset_bytes)),
        )
        .join(Series, Instance.series_pk == Series.id)
        .join(Study, Series.study_pk == Study.id)
        .group_by(*uids)
        .order_by(*uids)
    ).all()
    codecs: dict[tuple[str, str], set[str]] = {}
    in_containers = (
        select(*uids, Container.codecs)
        .distinct()
        .join(Series, Series.study_pk == Study.id)
        .join(Instance, Instance.series_pk == Series.id)
        .join(Container, Instance.container_pk == Container.id)
    )
    for study, series, names in session.execute(in_containers):
        codecs.setdefault((study, series), set()).update(filter(None, names.split(",")))
    return [
        KeptSeries(
            study, series, instances, archived, in_spool, int(stored), tuple(sorted(codecs.get((study, series), ())))
        )
        for study, series, instances, archived, in_spool, stored in rows
    ]
