"""Progress of long work: a bar on a terminal, one plain line a step elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextlib.contextmanager
def step(console: Console, description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a step that does `total` things; the block calls what it is given once for each."""
    with _bar(console, description, total, MofNCompleteColumn(), lambda done: f"{done}, ") as advance:
        yield lambda: advance(1)


@contextlib.contextmanager
def byte_step(console: Console, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a step that works through `total` bytes; the block calls what it is given with how many more are done."""
    with _bar(console, description, total, DownloadColumn(), lambda done: f"{done / 1e6:.1f} MB, ") as advance:
        yield advance


@contextlib.contextmanager
def _bar(
    console: Console, description: str, total: int | None, count: ProgressColumn, amount: Callable[[int], str]
) -> Iterator[Callable[[int], None]]:
    started = time.monotonic()
    done = 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(more: int) -> None:
            nonlocal done
            done += more
            bar.advance(task, more)

        yield advance
    said = amount(done) if done else ""
    console.print(f"{description}: {said}{time.monotonic() - started:.1f} s", highlight=False, markup=False)
