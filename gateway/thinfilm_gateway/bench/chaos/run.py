"""All scenarios, one after the other, each on a gateway of its own."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from thinfilm_gateway.bench.chaos.broker import wipe_broker
from thinfilm_gateway.bench.chaos.damage import flip_bytes
from thinfilm_gateway.bench.chaos.descriptors import use_up_descriptors
from thinfilm_gateway.bench.chaos.full_disk import fill_disks
from thinfilm_gateway.bench.chaos.kernel import pack_with_wrong_kernel
from thinfilm_gateway.bench.chaos.kills import kill_under_load
from thinfilm_gateway.bench.chaos.outcome import Outcome, Report
from thinfilm_gateway.bench.chaos.restored import Restored, restore_on_postgresql, restore_on_sqlite
from thinfilm_gateway.bench.chaos.rotten import send_over_rotten_copies
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
        "send over rotten copies": (1, lambda folder, advance: send_over_rotten_copies(folder)),
        "pack with a wrong kernel": (1, lambda folder, advance: pack_with_wrong_kernel(folder)),
        "use up descriptors": (1, lambda folder, advance: use_up_descriptors(folder, seed)),
    }
    for what in Restored:
        for name, restore in (("SQLite", restore_on_sqlite), ("PostgreSQL", restore_on_postgresql)):
            scenarios[f"restore the {what.value} ({name})"] = (1, partial(_restore, restore, what))
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


def _restore(
    scenario: Callable[[Path, Restored], Outcome], what: Restored, folder: Path, advance: Callable[[], None]
) -> Outcome:
    return scenario(folder, what)
