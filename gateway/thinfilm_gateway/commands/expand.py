"""`thinfilm expand`: the files of a container, byte for byte, below a folder."""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinfilm_gateway.archive.container.format import DamagedContainer, MissingDecoder
from thinfilm_gateway.archive.container.reader import Container, open_container
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.commands.errors import CommandError, plainly


@dataclass(frozen=True)
class Expanded:
    """What came of it; `to_json` is what `--json` prints.

    instances: files in the container. verified: those written, with their SHA-256. pixels: samples among these.
    damages: a sentence for each file that is lost, and for damage to the container that loses none; if there is any,
    the command has failed. missing: one for each codec or model that files need and that is not installed.
    """

    instances: int
    verified: int
    pixels: int
    decode_seconds: float
    damages: tuple[str, ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of the JSON contract."""
        return {
            "instances": self.instances,
            "verified": self.verified,
            "pixels": self.pixels,
            "decode_seconds": self.decode_seconds,
        }


def expand(archive: Path, directory: Path, progress: Callable[[int], None] | None = None) -> Expanded:
    """Write all files of `archive` below `directory`, which is made where it is missing.

    A file appears under its name only when it is whole and its SHA-256 right; one that is damaged is left out and told.
    progress: is told how many more bytes were written.
    Raises CommandError, before anything is written, for a file that is no container, names that lead outside the
    directory, and files that are there already.
    """
    begin = time.perf_counter()
    with plainly(), FileReader(archive) as reader:
        try:
            container = open_container(reader)
        except DamagedContainer as error:
            raise CommandError(f"{archive}: {error}") from None
        targets = [_target(directory, entry.name) for entry in container.entries]
        directory.mkdir(parents=True, exist_ok=True)
        damages = [f"{archive}: {damage}" for damage in container.structural_damages()]
        missing: dict[str, None] = {}  # an ordered set
        verified = pixels = 0
        for number in container.each(container.reading_order()):
            try:
                _write(container, number, targets[number], progress or (lambda count: None))
            except DamagedContainer as error:
                damages.append(f"{archive}: {error}")
            except MissingDecoder as error:
                missing[str(error)] = None
            else:
                verified += 1
                pixels += container.samples(number)
    return Expanded(len(targets), verified, pixels, time.perf_counter() - begin, tuple(damages), tuple(missing))


def _target(directory: Path, name: str) -> Path:
    """Return where an entry goes. Names are relative and plain already; links on the way could still lead outside."""
    target = directory / name
    if not target.resolve().is_relative_to(directory.resolve()):
        raise CommandError(f"The entry {name!r} would be written outside {directory}.")
    if os.path.lexists(target):
        raise CommandError(f"{target} is there already; expand into another folder.")
    return target


def _write(container: Container, number: int, target: Path, progress: Callable[[int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".thinfilm-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            for data in container.stream(number):
                file.write(data)
                progress(len(data))
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
