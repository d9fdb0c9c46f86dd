"""What a new user gets: the wheel alone, with what it asks for, in an environment of its own, as a whole site.

Apart from `make test`, since it installs everything anew: `make wheel-test`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.datasets import ct_series
from support.dcmtk import echoscu, getscu, storescp, storescu
from support.objects import datasets_in, write_files
from support.receiver import wait_until
from support.servers import free_port, postgres, redis

pytestmark = pytest.mark.timeout(900)  # pip has much to unpack

ROOT = Path(__file__).parents[2]
ONLY_FOR_DEVELOPMENT = {"torch", "pytest", "hypothesis", "mypy", "scikit-image", "matplotlib", "dipy"}


@dataclass(frozen=True)
class Installation:
    """An environment that has the wheel and nothing else."""

    programs: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment and return what it prints; it has to end well."""
        ended = subprocess.run(
            [self.programs / program, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{program} {' '.join(arguments)}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[Path]:
        """Run a command of `thinfilm` until the block ends, and give its log; it has to stop in order."""
        log = self.folder / f"{'-'.join(argument for argument in arguments if argument.isalpha())}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.programs / "thinfilm", *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=output,
                stderr=output,
            )
        try:
            yield log
            assert process.poll() is None, log.read_text(encoding="utf-8")
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(90)
        assert status == 0, log.read_text(encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the checkout or of somebody's settings."""
        others = {key: value for key, value in os.environ.items() if not key.startswith(("THINFILM_", "PYTHON"))}
        return others | {"PATH": f"{self.programs}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def build_wheel(folder: Path, **environment: str) -> Path:
    sources = folder / "sources"
    left_out = shutil.ignore_patterns(".*", "tests", "build", "dist", "*.egg-info", "*.so", "__pycache__")
    shutil.copytree(ROOT, sources, symlinks=True, ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(sources)],
        env=os.environ | environment,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installation")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
    installation = Installation(folder / "environment" / "bin", folder)
    installation.run("pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    return installation


def test_the_wheel_brings_all_that_it_needs_and_nothing_of_the_development(installation: Installation):
    installation.run("pip", "check")
    names = {package["name"] for package in json.loads(installation.run("pip", "list", "--format=json"))}
    assert names & ONLY_FOR_DEVELOPMENT == set()


def test_a_study_goes_in_and_out_of_a_site_of_gateway_worker_and_beat(installation: Installation, tmp_path: Path):
    """All three take what they need from one settings file; DCMTK sends and gets."""
    port, http_port, reference_port = free_port(), free_port(), free_port()
    with postgres() as server, redis() as broker_url:
        settings = tmp_path / "site.toml"
        settings.write_text(
            f'data_dir = "{installation.folder / "data"}"\n'
            f'database_url = "{server.create_database("site")}"\n'
            f'broker_url = "{broker_url}"\n'
            f'dicom_host = "127.0.0.1"\ndicom_port = {port}\nhttp_port = {http_port}\n'
            "series_quiet_seconds = 0.5\nminimum_free_bytes = 0\nwarning_free_bytes = 0\ncache_bytes = 0\n",
            encoding="utf-8",
        )
        config = ("--config", str(settings))
        installation.run("thinfilm", "db", "upgrade", *config)

        def status() -> dict[str, object]:
            document = json.loads(installation.run("thinfilm", "status", "--json", *config))
            assert isinstance(document, dict)
            return document

        files = write_files(tmp_path / "files", ct_series(8, 64))
        paths = [file.path for file in files]
        keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={files[0].study_instance_uid}"]
        with (
            installation.running("serve", *config),
            installation.running("celery", "worker", "--concurrency", "1", *config),
            installation.running("celery", "beat", *config),
        ):
            wait_until(lambda: echoscu(port).ok, "the gateway answers")
            with storescp(reference_port, _made(tmp_path / "sent")):  # what DCMTK sends, which writes data sets anew
                storescu(reference_port, paths).check()
            storescu(port, paths).check()
            wait_until(lambda: status()["archived"] == len(files), "the study is in the archive")
            getscu(port, keys, _made(tmp_path / "got"), "-S").check()
            assert datasets_in(tmp_path / "got") == datasets_in(tmp_path / "sent")
            assert len(datasets_in(tmp_path / "got")) == len(files)
    (container,) = (installation.folder / "data" / "archive").glob("??/*.tfa")
    assert "neural" in installation.run("thinfilm", "inspect", str(container)), "the compiled kernel came along"


def test_a_wheel_is_called_that_of_a_platform_only_where_it_holds_the_kernel(wheel: Path, tmp_path: Path):
    interpreter = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.split("-")[2:4] == [interpreter, interpreter]
    without_compiler = build_wheel(tmp_path, CC="false")
    assert without_compiler.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(without_compiler) as held:
        assert [name for name in held.namelist() if name.endswith(".so")] == []
        (tags,) = [held.read(name).decode() for name in held.namelist() if name.endswith(".dist-info/WHEEL")]
    assert "Tag: py3-none-any" in tags


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
