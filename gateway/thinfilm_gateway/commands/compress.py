"""`thinfilm compress`: files and folders into one container, proven by reading it back."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinfilm_codecs import registry
from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.pack import CannotPack, Source, pack
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.container.report import PackReport
from thinfilm_gateway.archive.lossy import Decision, LossyFiles, derive_files
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.background import usable_cores
from thinfilm_gateway.commands.errors import CommandError, plainly
from thinfilm_gateway.commands.lossy_rows import LossySeries, lossy_series
from thinfilm_gateway.policy import lossless
from thinfilm_gateway.policy.lossy import LossyTreatment, lossy_treatment


@dataclass(frozen=True)
class Compressed:
    """What came of it; `to_json` is what `--json` prints.

    decisions: one a file where lossy compression was asked for; else none.
    """

    files_in: int
    bytes_in: int
    model_hashes: tuple[str, ...]
    report: PackReport
    decisions: tuple[Decision, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document of the JSON contract."""
        lossy = {row.series_instance_uid: row for row in self.lossy}
        return {
            "files_in": self.files_in,
            "bytes_in": self.bytes_in,
            "archive_bytes": self.report.archive_bytes,
            "model_hashes": list(self.model_hashes),
            "series": [
                asdict(row) | (lossy[row.series_instance_uid].to_json() if lossy else {}) for row in self.report.series
            ],
        }

    @property
    def lossy(self) -> tuple[LossySeries, ...]:
        """What became of each series where lossy compression was asked for; else none."""
        return lossy_series(self.decisions, self.report.series) if self.decisions else ()


def compress(
    sources: Sequence[Source],
    output: Path,
    candidates: Sequence[str],
    preset: str = registry.DEFAULT_PRESET,
    device: str = lossless.DEVICES[0],
    progress: Callable[[int], None] | None = None,
    lossy: LossyTreatment | None = None,
) -> Compressed:
    """Pack the sources (see `sources`) into `output`, read it back from the disk and compare every SHA-256.

    candidates: ids of the lossless codecs to choose from. preset: how hard they try. device: where they compute; those
    without a choice try as ever, on the CPU. progress: is told how many more bytes were packed.
    lossy: files that may be lossy become objects derived from them, under the same names; all others stay as they are.
    Raises CommandError; then there is no `output`.
    """
    try:
        treatment = lossless.treatment(candidates, preset, device)
        lossless.check_usable(candidates, device)
    except (lossless.UnknownTreatment, lossless.UnusableCodec) as error:
        raise CommandError(str(error)) from None
    if os.path.lexists(output):
        raise CommandError(f"{output} is there already; remove it or give another name.")
    threads = usable_cores()
    with plainly(), contextlib.ExitStack() as stack:
        try:
            bytes_in = sum(source.path.stat().st_size for source in sources)
            files = LossyFiles(tuple(sources), (), ())
            if lossy is not None:
                folder = tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
                files = derive_files(sources, Path(stack.enter_context(folder)), lossy, threads)
            report = pack(files.sources, output, treatment, progress, threads, files.ready)
        except CannotPack as error:
            raise CommandError(str(error)) from None
        model_hashes = _prove(output)
    return Compressed(len(sources), bytes_in, model_hashes, report, files.decisions)


def lossy_request(
    codec: str | None,
    profile: str | None,
    max_error: int | None,
    ratio: float | None,
    preset: str = registry.DEFAULT_PRESET,
    device: str = lossless.DEVICES[0],
) -> LossyTreatment | None:
    """Return what the options of the command line ask for; None where nothing may be lost. Raises CommandError."""
    if codec in registry.lossy_names():
        try:
            lossless.check_usable([str(codec)], device)
            return lossy_treatment(str(codec), profile, max_error, ratio, preset, device)
        except (lossless.UnknownTreatment, lossless.UnusableCodec) as error:
            raise CommandError(str(error)) from None
    if codec is not None and codec not in registry.names():
        known = ", ".join((*registry.names(), *registry.lossy_names()))
        raise CommandError(f"No codec is called {codec!r}; choose among {known}.")
    given = {"--profile": profile, "--max-error": max_error, "--ratio": ratio}
    for option, value in given.items():
        if value is not None:
            names = ", ".join(registry.lossy_names())
            raise CommandError(f"{option} is for a lossy codec, given by --codec: {names}.")
    return None


def sources(paths: Sequence[Path]) -> list[Source]:
    """Return all files of the paths, folders searched through and sorted by name.

    Names are relative to the folder, where one folder is given; else to the deepest folder that holds all paths.
    Raises CommandError for what is no file or folder, for links to folders, and for a file that is given twice.
    """
    if not paths:
        raise CommandError("Give at least one file or folder.")
    with plainly():
        absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
        whole_folder = len(absolute) == 1 and absolute[0].is_dir()
        base = absolute[0] if whole_folder else Path(os.path.commonpath([path.parent for path in absolute]))
        found = [Source(file, file.relative_to(base).as_posix()) for path in absolute for file in _files(path)]
    if not found:
        raise CommandError(f"There is no file in {', '.join(map(str, paths))}.")
    names: set[str] = set()
    for source in found:
        if source.name in names:
            raise CommandError(f"{source.path} is given twice.")
        names.add(source.name)
    return found


def _files(path: Path) -> Iterator[Path]:
    """Give a file, or all files below a folder, sorted."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_dir() and child.is_symlink():
                raise CommandError(f"{child} is a link to a folder; give that folder itself.")
            yield from _files(child)
    elif path.is_file():
        yield path
    elif os.path.lexists(path):
        raise CommandError(f"{path} is neither a file nor a folder.")
    else:
        raise CommandError(f"There is no {path}.")


def _prove(output: Path) -> tuple[str, ...]:
    """Read the container back and return its model hashes; remove it where it does not give every file back."""
    try:
        with FileReader(output) as reader:
            container = open_container(reader)
            damages, model_hashes = container.verify(), container.model_hashes()
    except DamagedContainer as error:
        damages, model_hashes = [str(error)], ()
    if damages:
        output.unlink()
        raise CommandError(f"{output} was removed, since it did not read back as it was written: {damages[0]}")
    return model_hashes
