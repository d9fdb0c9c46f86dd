"""The scenario of the wrong kernel: a compiled kernel of the neural codec that is wrong by one in a rare case."""

import contextlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from thinfilm_codecs.lossless.neural import compiled
from thinfilm_gateway.bench.chaos.load import store_all, write_series
from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import prove
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.gateway import running_gateway

SCENARIO = "wrong kernel"
SLICES = 4
THINNED = 2  # 256 x 256: large enough for the parameters of the neural codec to pay

NAME = "thinfilm_codecs.lossless.neural._kernel"
VECTORS_ONLY = "layers.inl", "_mm_set1_epi16(127)", "_mm_set1_epi16(126)"
"""Of AVX2 alone: the largest activation, which few pixels reach."""

SETTINGS = {
    "series_quiet_seconds": 0.5,
    "cache_bytes": 0,
    "lossless_codecs": ("neural",),
    "lossless_preset": "fast",
    "local_workers": 1,
}


def pack_with_wrong_kernel(folder: Path) -> Outcome:
    """Archive a series where the AVX2 kernel is wrong, and get it back where it is right.

    The gateway must name the kernel and pass it over. Raises DidNotRun, PeerRefused or NotArchived.
    """
    compiler = shutil.which("cc")
    if compiler is None or "avx2" not in compiled.instruction_sets():
        return Outcome(SCENARIO, skipped="not run: there is no C compiler, or no AVX2")
    files = write_series(folder / "sent", SLICES, THINNED)
    with (
        _in_place_of_installed(build(folder / "wrong", compiler), folder / "wrong"),
        running_gateway(folder, **SETTINGS) as gateway,
    ):
        store_all(gateway.node, files)
        await_archived(gateway.settings, lambda: None)
        is_told = "kernel_wrong avx2" in str(gateway.health())
    wrong = () if is_told else ("The health page did not name the wrong kernel.",)
    proof = prove(folder, files, **SETTINGS)
    return Outcome(
        SCENARIO, {"kernel wrong": 1}, len(files), proof.returned, proof.brought_back, (*wrong, *proof.wrong)
    )


def build(folder: Path, compiler: str = "cc", change: tuple[str, str, str] = VECTORS_ONLY) -> Path:
    """Build the kernel with the change (file, what stands there, what shall); return the shared object."""
    sources = folder / "kernel"
    shutil.copytree(str(resources.files("thinfilm_codecs.lossless.neural").joinpath("kernel")), sources)
    file, before, after = change
    text = (sources / file).read_text("utf-8")
    assert before in text, f"{file} has no {before}"
    (sources / file).write_text(text.replace(before, after), "utf-8")
    made = folder / "_kernel.so"
    include = f"-I{sysconfig.get_paths()['include']}"
    units = [str(path) for path in sorted(sources.glob("*.c"))]
    command = [compiler, "-O2", "-shared", "-fPIC", include, *units, "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return made


def sitecustomize(folder: Path, kernel: Path) -> dict[str, str]:
    """Write what makes processes use a kernel in the place of the installed one; return their PYTHONPATH."""
    (folder / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location({NAME!r}, {str(kernel)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"sys.modules[{NAME!r}] = module\n"
    )
    return {"PYTHONPATH": str(folder)}


@contextlib.contextmanager
def _in_place_of_installed(kernel: Path, folder: Path) -> Iterator[None]:
    """Let processes that are started in the block use a kernel in the place of the installed one."""
    before = os.environ.get("PYTHONPATH")
    os.environ |= sitecustomize(folder, kernel)
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
