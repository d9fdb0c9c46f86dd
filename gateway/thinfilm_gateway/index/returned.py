"""What comes under the SOP Instance UIDs of originals that were retired: such an original again, or something else."""

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Derivation, Instance, Series, Study


@dataclass(frozen=True)
class Retired:
    """An original that is gone. sha256: of its encoded data set. kept_for: how long it was to stay; None: for ever."""

    derivation_pk: int
    sha256: str
    derived_uid: str
    series_key: tuple[str, str]
    kept_for: dt.timedelta | None


_RETIRED = (
    select(
        Derivation.id,
        Derivation.original_sop_instance_uid,
        Derivation.original_sha256,
        Derivation.derived_sop_instance_uid,
        Derivation.decided_at,
        Derivation.retire_at,
        Study.study_instance_uid,
        Series.series_instance_uid,
    )
    .join(Series, Series.id == Derivation.series_pk)
    .join(Study, Study.id == Series.study_pk)
    .where(
        Derivation.original_sop_instance_uid.in_(bindparam("originals", expanding=True)),
        Derivation.retired_at.is_not(None),
    )
)


def retired_originals(session: Session, sop_instance_uids: Collection[str]) -> dict[str, list[Retired]]:
    """Return the originals that are gone, by SOP Instance UID; without UIDs, nothing is asked of the database."""
    found: dict[str, list[Retired]] = {}
    if not sop_instance_uids:
        return found
    for row in session.connection().execute(_RETIRED, {"originals": list(sop_instance_uids)}):
        original = Retired(
            row.id,
            row.original_sha256,
            row.derived_sop_instance_uid,
            (row.study_instance_uid, row.series_instance_uid),
            None if row.retire_at is None else row.retire_at - row.decided_at,
        )
        found.setdefault(row.original_sop_instance_uid, []).append(original)
    return found


def serve_no_longer(session: Session, originals: Sequence[Retired]) -> None:
    """Serve the objects no longer that were derived from these originals, since others have come for the old UIDs."""
    uids = [original.derived_uid for original in originals]
    unserved = update(Instance).where(Instance.sop_instance_uid.in_(uids)).values(current=False)
    session.execute(unserved.execution_options(synchronize_session=False))


def note_return(session: Session, original: Retired, now: dt.datetime) -> None:
    """Let an original that came again stay for as long as it did the first time."""
    again = None if original.kept_for is None else now + original.kept_for
    kept = update(Derivation).where(Derivation.id == original.derivation_pk)
    kept = kept.values(decided_at=now, retire_at=again, retired_at=None)
    session.execute(kept.execution_options(synchronize_session=False))
