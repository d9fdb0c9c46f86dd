"""All scenarios, one after the other, each on a gateway of its own."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from thinfilm_gateway.bench.chaos.broker import wipe_broker
from thinfilm_gateway.bench.chaos.damage import flip_bytes
from thinfilm_gateway.bench.chaos.full_disk import fill_disks
from thinfilm_gateway.bench.chaos.kills import kill_under_load
from thinfilm_gateway.bench.chaos.outcome import Outcome, Report
from thinfilm_gateway.client.archived import NotArchived
from thinfilm_gateway.client.gateway import DidNotRun
from thinfilm_gateway.client.network import PeerRefused
from thinfilm_gateway.progress import step


def run(console: Console, kills: int, seed: int) -> Report:
    """Do harm to gateways of one's own, and look at what is left. Linux only.

    A scenario that breaks off is wrong, and the others are told all the same.
    """
    scenarios: dict[str, tuple[int, Callable[[Path, Callable[[], None]], Outcome]]] = {
        "kill": (kills, lambda folder, advance: kill_under_load(folder, kills, seed, advance)),
        "stop and wipe the broker": (1, lambda folder, advance: wipe_broker(folder, seed)),
        "fill the disks": (1, lambda folder, advance: fill_disks(folder, seed)),
        "flip bytes": (1, lambda folder, advance: flip_bytes(folder)),
    }
    outcomes: list[Outcome] = []
    for description, (total, scenario) in scenarios.items():
        with (
            tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as folder,
            step(console, description, total) as advance,
        ):
            try:
                outcomes.append(scenario(Path(folder), advance))
            except (DidNotRun, PeerRefused, NotArchived, OSError) as error:
                outcomes.append(Outcome(description, wrong=(f"The scenario {description!r} broke off: {error}",)))
    return Report(seed, tuple(outcomes))
