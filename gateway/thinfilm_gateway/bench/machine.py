"""What figures were measured on."""

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path


def machine(libraries: Iterable[str]) -> dict[str, str]:
    """Return the processor, and the versions of Python and of those libraries that are installed, by name."""
    found = {"processor": _processor(), "python": platform.python_version()}
    for name in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
