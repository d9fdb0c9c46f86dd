"""Runs the clients of DCMTK, which are not ours, and gives back what they said."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 120
_START_SECONDS = 15


@dataclass(frozen=True)
class Result:
    """How a client ended; output: what it wrote, both streams together."""

    command: tuple[str, ...]
    returncode: int
    output: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0

    def check(self) -> "Result":
        """Fail the test, with the client's own words, unless it ended well."""
        assert self.ok, f"{' '.join(self.command)} ended with {self.returncode}:\n{self.output}"
        return self


def echoscu(port: int, *options: str, called: str = "THINFILM") -> Result:
    return run("echoscu", *options, "-aec", called, "127.0.0.1", str(port))


def storescu(port: int, files: Sequence[Path | str], *options: str, called: str = "THINFILM") -> Result:
    return run("storescu", *options, "-aec", called, "127.0.0.1", str(port), *map(str, files))


def dcmsend(port: int, files: Sequence[Path | str], *options: str, called: str = "THINFILM") -> Result:
    return run("dcmsend", *options, "-aec", called, "127.0.0.1", str(port), *map(str, files))


def findscu(port: int, keys: Sequence[str], *options: str, called: str = "THINFILM") -> Result:
    """keys: as of findscu -k, "PatientName=A*"."""
    return run("findscu", *options, "-aec", called, *_keys(keys), "127.0.0.1", str(port))


def movescu(port: int, keys: Sequence[str], destination: str, *options: str, called: str = "THINFILM") -> Result:
    return run("movescu", *options, "-aec", called, "-aem", destination, *_keys(keys), "127.0.0.1", str(port))


def getscu(port: int, keys: Sequence[str], folder: Path, *options: str, called: str = "THINFILM") -> Result:
    """Files are written to `folder`, bit by bit as they came."""
    return run("getscu", "+B", *options, "-aec", called, "-od", str(folder), *_keys(keys), "127.0.0.1", str(port))


@contextlib.contextmanager
def storescp(
    port: int, folder: Path, *options: str, ae_title: str = "STORESCP", caller: Sequence[str] = ()
) -> Iterator[None]:
    """Run a storage SCP that takes every transfer syntax and writes what comes, bit by bit, to `folder`.

    caller: options with which echoscu finds out that it answers.
    """
    command = [_program("storescp"), "+B", "+xa", *options, "-aet", ae_title, "-od", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            _await_echo(port, ae_title, process, caller)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=TIMEOUT_SECONDS)


def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a client and leave it running."""
    return subprocess.Popen(
        [_program(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def run(program: str, *arguments: str) -> Result:
    """Run a client to its end, at most TIMEOUT_SECONDS."""
    command = (_program(program), *arguments)
    process = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return Result(command, process.returncode, process.stdout)


def _keys(keys: Sequence[str]) -> list[str]:
    return [argument for key in keys for argument in ("-k", key)]


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed; install DCMTK (Debian: apt-get install dcmtk)."
    return path


def _await_echo(port: int, ae_title: str, process: "subprocess.Popen[bytes]", options: Sequence[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not run("echoscu", *options, "-aec", ae_title, "127.0.0.1", str(port)).ok:
        assert process.poll() is None, f"storescp ended: {process.communicate()[0].decode(errors='replace')}"
        assert time.monotonic() < deadline, f"storescp did not answer within {_START_SECONDS} seconds."
