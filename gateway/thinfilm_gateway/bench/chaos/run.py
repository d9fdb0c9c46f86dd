"""All scenarios, one after the other, each on a gateway of its own."""

import tempfile
from pathlib import Path

from rich.console import Console

from thinfilm_gateway.bench.chaos.kills import kill_under_load
from thinfilm_gateway.bench.chaos.outcome import Outcome, Report
from thinfilm_gateway.progress import step


def run(console: Console, kills: int, seed: int) -> Report:
    """Do harm to gateways of one's own, and look at what is left. Linux only. Raises DidNotRun or PeerRefused."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as folder, step(console, "kill", kills) as advance:
        outcomes.append(kill_under_load(Path(folder), kills, seed, advance))
    return Report(seed, tuple(outcomes))
