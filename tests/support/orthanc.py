"""Runs Orthanc, a PACS that is not ours, with its REST interface on the loopback interface."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.servers import free_port

START_SECONDS = 60.0


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc."""

    http_port: int
    dicom_port: int

    def get(self, path: str) -> bytes:
        """Return what GET answers."""
        return self._request("GET", path, None)

    def post(self, path: str, body: bytes | dict[str, Any]) -> Any:
        """Return the JSON document that POST answers."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        return json.loads(self._request("POST", path, data))

    def delete(self, path: str) -> None:
        """Delete a resource."""
        self._request("DELETE", path, None)

    def instances(self) -> list[str]:
        """Return Orthanc's own identifiers of all instances."""
        return list(json.loads(self.get("/instances")))

    def _request(self, method: str, path: str, data: bytes | None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def orthanc(folder: Path, dicom_port: int, modalities: Mapping[str, tuple[str, int]]) -> Iterator[Orthanc]:
    """Run Orthanc as ORTHANC on `dicom_port` until the block ends; modalities: name -> (AE title, port)."""
    folder.mkdir(parents=True, exist_ok=True)
    http_port = free_port()
    configuration = {
        "Name": "ORTHANC",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpsVerifyPeers": False,
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": True,
        "DicomModalities": {name: [title, "127.0.0.1", port] for name, (title, port) in modalities.items()},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    log = folder / "orthanc.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=output, stderr=output)
    running = Orthanc(http_port, dicom_port)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(running):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Orthanc did not start:\n{log.read_text(errors='replace')}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        yield running
    finally:
        process.terminate()
        process.wait(60)


def _answers(running: Orthanc) -> bool:
    try:
        running.get("/system")
    except (urllib.error.URLError, OSError):
        return False
    return True
