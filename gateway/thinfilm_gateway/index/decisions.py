"""What lossy rules decided of images, the latest first."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Derivation


@dataclass(frozen=True)
class Decision:
    """One row of the map; see models.Derivation."""

    original_sop_instance_uid: str
    derived_sop_instance_uid: str | None
    codec: str | None
    setting: str | None
    ratio_allocated: float | None
    ratio_stored: float | None
    max_error: int | None
    rmse: float | None
    profile: str
    ceiling: float | None
    citation: str | None
    error_bound: int | None
    reason: str
    decided_at: dt.datetime
    retire_at: dt.datetime | None
    retired_at: dt.datetime | None


def decisions(session: Session, limit: int = 100) -> list[Decision]:
    """Return the last `limit` decisions, the latest first."""
    statement: Any = select(
        Derivation.original_sop_instance_uid,
        Derivation.derived_sop_instance_uid,
        Derivation.codec,
        Derivation.setting,
        Derivation.ratio_allocated,
        Derivation.ratio_stored,
        Derivation.max_error,
        Derivation.rmse,
        Derivation.profile,
        Derivation.ceiling,
        Derivation.citation,
        Derivation.error_bound,
        Derivation.reason,
        Derivation.decided_at,
        Derivation.retire_at,
        Derivation.retired_at,
    )
    return [Decision(*row) for row in session.execute(statement.order_by(Derivation.id.desc()).limit(limit))]
