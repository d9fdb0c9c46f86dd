"""`thinfilm status --lossy`: what lossy rules made of images, and why others stay lossless."""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from thinfilm_gateway.commands.status import reading
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index.decisions import Decision, decisions


@dataclass(frozen=True)
class LossyDecisions:
    """The last 100 decisions, the latest first."""

    decisions: tuple[Decision, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints; times in ISO 8601."""
        return {"decisions": [{name: _plain(value) for name, value in asdict(one).items()} for one in self.decisions]}


def lossy_decisions(settings: Settings) -> LossyDecisions:
    """Read them out of the index. Raises UnusableDataFolder, UnusableIndex."""
    with reading(settings) as session:
        return LossyDecisions(tuple(decisions(session)))


def render(result: LossyDecisions) -> RenderableType:
    """Return the same for a terminal: one sentence or two an image."""
    if not result.decisions:
        return Text("no lossy rule has decided anything")
    return Group(*(Text(_sentence(one)) for one in result.decisions))


def _sentence(one: Decision) -> str:
    if one.derived_sop_instance_uid is None:
        return f"{one.decided_at:%Y-%m-%d %H:%M} {one.original_sop_instance_uid} stays lossless: {one.reason}"
    state = "the original is gone" if one.retired_at else "the original is kept"
    return (
        f"{one.decided_at:%Y-%m-%d %H:%M} {one.original_sop_instance_uid} {one.codec} {one.setting},"
        f" {one.ratio_allocated:.2f} times smaller, as {one.derived_sop_instance_uid}; {state}. {one.reason}"
    )


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value
