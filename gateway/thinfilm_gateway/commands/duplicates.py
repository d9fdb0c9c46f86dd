"""`thinfilm status --duplicates`: what came with other content under a SOP Instance UID that was there already."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thinfilm_gateway.commands.status import reading
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index import duplicates as index_duplicates
from thinfilm_gateway.index.duplicates import DuplicateEvent, Revision


@dataclass(frozen=True)
class Duplicates:
    """The revisions of the last 100 SOP Instance UIDs that have several, and the last 100 events about such."""

    revisions: tuple[Revision, ...]
    events: tuple[DuplicateEvent, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints; times in ISO 8601."""
        return {
            "revisions": [asdict(one) | {"received_at": one.received_at.isoformat()} for one in self.revisions],
            "events": [asdict(one) | {"at": one.at.isoformat()} for one in self.events],
        }


def duplicates(settings: Settings) -> Duplicates:
    """Read them out of the index. Raises UnusableDataFolder, UnusableIndex."""
    with reading(settings) as session:
        return Duplicates(tuple(index_duplicates.revisions(session)), tuple(index_duplicates.events(session)))


def render(result: Duplicates) -> RenderableType:
    """Return the same for a terminal: long UIDs and SHA-256 by their ends."""
    if not result.events and not result.revisions:
        return Text("no duplicates")
    kept = Table(box=None, pad_edge=False)
    for name in ("SOP instance", "revision", "served", "study", "series", "state", "bytes", "SHA-256", "from", "at"):
        kept.add_column(name, justify="right" if name in ("revision", "bytes") else "left")
    for one in result.revisions:
        kept.add_row(
            _end(one.sop_instance_uid),
            str(one.revision),
            "yes" if one.current else "",
            _end(one.study_instance_uid),
            _end(one.series_instance_uid),
            one.state.value,
            f"{one.dataset_bytes:,}",
            one.sha256[:8],
            one.sender_ae_title,
            f"{one.received_at:%Y-%m-%d %H:%M:%S}",
        )
    lines = [
        Text(f"{one.at:%Y-%m-%d %H:%M:%S} {one.kind} {one.sop_instance_uid} from {one.peer}: {one.detail}")
        for one in result.events
    ]
    return Group(kept, Text(), *lines)


def _end(uid: str, characters: int = 16) -> str:
    return uid if len(uid) <= characters else f"...{uid[3 - characters :]}"
