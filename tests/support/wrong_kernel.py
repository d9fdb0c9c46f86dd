"""A compiled kernel that is wrong by one: the real sources with one number changed, built by the C compiler here."""

import importlib.util
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

from thinfilm_codecs.lossless.neural import compiled, kernels

NAME = "thinfilm_codecs.lossless.neural._kernel"
VECTORS_ONLY = "layers.inl", "_mm_set1_epi16(127)", "_mm_set1_epi16(126)"
"""Of AVX2 alone: the largest activation, which few pixels reach."""


def build(folder: Path, change: tuple[str, str, str] = VECTORS_ONLY) -> Path:
    """Build the kernel with the change (file, what stands there, what shall); return the shared object.

    `used` exchanges the kernel of this process, `sitecustomize` those of others.
    """
    sources = folder / "kernel"
    shutil.copytree(str(resources.files("thinfilm_codecs.lossless.neural").joinpath("kernel")), sources)
    file, before, after = change
    text = (sources / file).read_text()
    assert before in text, f"{file} has no {before}"
    (sources / file).write_text(text.replace(before, after))
    made = folder / "_kernel.so"
    include = f"-I{sysconfig.get_paths()['include']}"
    units = [str(path) for path in sorted(sources.glob("*.c"))]
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", include, *units, "-o", str(made)], check=True)
    return made


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


def sitecustomize(folder: Path, kernel: Path) -> dict[str, str]:
    """Write what makes processes use it; return their PYTHONPATH."""
    (folder / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location({NAME!r}, {str(kernel)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"sys.modules[{NAME!r}] = module\n"
    )
    return {"PYTHONPATH": str(folder)}
