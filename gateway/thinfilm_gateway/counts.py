"""What there is in the index, for those who ask often."""

import datetime as dt
import threading
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from thinfilm_gateway.index.savings import Savings, savings
from thinfilm_gateway.index.status import Summary, summary

CHEAP_SECONDS = 0.5  # counting that takes no longer is done whenever somebody asks
LEAST_PAUSE = 30  # times as long as the last count took beyond that


@dataclass(frozen=True)
class Counts:
    """How much there is, and what it takes."""

    summary: Summary
    savings: Savings
    counted_at: dt.datetime

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name, the times in ISO 8601."""
        savings = {"savings": self.savings.to_json()}
        return self.summary.to_json() | savings | {"counted_at": self.counted_at.isoformat()}


def count(session: Session) -> Counts:
    """Count now: seconds for a million instances."""
    now = dt.datetime.now(dt.UTC)
    return Counts(summary(session, now), savings(session), now)


class Tally:
    """Counts, and says the same again as long as counting anew would cost too much; for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counts | None = None
        self._good_until = 0.0

    def counts(self, session: Session) -> Counts:
        """Return the numbers, counted anew if that was cheap or is long ago."""
        with self._lock:
            if self._counts is None or time.monotonic() >= self._good_until:
                began = time.monotonic()
                self._counts = count(session)
                ended = time.monotonic()
                self._good_until = ended + LEAST_PAUSE * max(0.0, ended - began - CHEAP_SECONDS)
            return self._counts
