"""The scenario of the rotten copies: what is sent again heals an object whose only copy has rotted unseen."""

from pathlib import Path

from thinfilm_gateway.bench.chaos.damage import container_of, flip
from thinfilm_gateway.bench.chaos.load import await_returned, store_all, write_series
from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import prove
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.config import Settings

SLICES = 4

SETTINGS = {"series_quiet_seconds": 0.5, "cache_bytes": 0, "lossless_codecs": ("jpegls",), "local_workers": 1}
IDLE = SETTINGS | {"local_workers": 0}


def send_over_rotten_copies(folder: Path) -> Outcome:
    """Let a container rot, and a file of the spool; send both series again, and wait until all of it comes back.

    No scrub has told of the damage before. Raises DidNotRun, PeerRefused or NotArchived.
    """
    settings = Settings.model_validate(SETTINGS | {"data_dir": folder / "data"})
    archived, spooled = (write_series(folder / name, SLICES) for name in ("archived", "spooled"))
    with running_gateway(folder, **SETTINGS) as gateway:
        store_all(gateway.node, archived)
        await_archived(gateway.settings, lambda: None)
    with running_gateway(folder, **IDLE) as gateway:
        store_all(gateway.node, spooled)
    flip(container_of(settings, archived[0]), "frames")
    (file,) = settings.spool_dir.rglob(f"*{spooled[0].sha256}")
    _rot(file)
    files = [*archived, *spooled]
    with running_gateway(folder, **IDLE) as gateway:
        store_all(gateway.node, files)
    with running_gateway(folder, **SETTINGS) as gateway:
        wrong = await_returned(gateway.node, files)
    proof = prove(folder, files, **SETTINGS)
    faults = {"container rotten": 1, "spool file rotten": 1}
    return Outcome(
        "sent again over rotten copies", faults, len(files), proof.returned, proof.brought_back, (*wrong, *proof.wrong)
    )


def _rot(file: Path) -> None:
    """Change a byte of the pixels, and nothing of the length."""
    content = bytearray(file.read_bytes())
    content[-100] ^= 0x40
    file.write_bytes(content)
