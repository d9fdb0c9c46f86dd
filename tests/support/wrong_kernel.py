"""A compiled kernel that is wrong by one: the real sources with one number changed, built by the C compiler here."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from thinfilm_codecs.lossless.neural import compiled, kernels
from thinfilm_gateway.bench.chaos.kernel import NAME, VECTORS_ONLY, build, sitecustomize

__all__ = ["NAME", "VECTORS_ONLY", "build", "loaded", "sitecustomize", "used"]


def loaded(path: Path) -> ModuleType:
    """Load it beside the installed one."""
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def used(module: ModuleType) -> Iterator[None]:
    """Let this process use it in the place of the installed one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_kernel", module)
        kernels.forget()
        yield
    kernels.forget()
