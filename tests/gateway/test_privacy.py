"""Nobody but the user of the gateway reads what it keeps, however the folders were made."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.datasets import ct_series
from support.gateway import running_gateway
from support.receiver import wait_until
from support.scu import store_all
from thinfilm_gateway.config import Settings, load
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.privacy import NotPrivate, make_private, readable_secrets

NOBODY = 65534
OPEN_UMASK = 0o022


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, as /srv is, and that a gateway is started in with the usual umask."""
    before = os.umask(OPEN_UMASK)
    with tempfile.TemporaryDirectory(prefix="thinfilm-open-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "data").mkdir(mode=0o755)
        yield folder
    os.umask(before)


def files_others_can_read(folder: Path) -> list[str]:
    """What another user sees with their own eyes; where the tests cannot become another user, what the modes say."""
    if os.geteuid() != 0:
        return _by_modes(folder)
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "find", str(folder)]
    found = subprocess.run([*command, "-type", "f", "-readable"], capture_output=True, text=True, check=False)
    return [path for path in found.stdout.split() if not path.endswith(".lock")]  # with the number of a process


def _by_modes(folder: Path) -> list[str]:
    readable = []
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if (Path(path) / name).stat().st_mode & 0o005 == 0o005]
        closed = {name for name in files if not (Path(path) / name).stat().st_mode & 0o004 or name.endswith(".lock")}
        readable += [str(Path(path) / name) for name in files if name not in closed]
    return readable


def test_a_gateway_in_a_folder_that_all_can_enter_makes_nothing_that_they_can_read(open_folder: Path) -> None:
    with running_gateway(open_folder, series_quiet_seconds=0.1, cache_bytes=1 << 30) as gateway:
        store_all(gateway.settings.dicom_port, ct_series(2))
        wait_until(lambda: gateway.health().get("archived") == 2, "it is in the archive")
        data = gateway.settings.data_dir
        assert any(data.glob("archive/*/*.tfa"))
        assert any(data.glob("spool/??/*"))
        assert (data / "index.sqlite-wal").exists()
        assert files_others_can_read(data) == []
        loose = [path for path in data.rglob("*") if path.stat().st_mode & 0o077]
    assert loose == []


def test_what_an_earlier_version_left_open_is_closed_at_the_start(open_folder: Path) -> None:
    with running_gateway(open_folder, series_quiet_seconds=0.1) as gateway:
        store_all(gateway.settings.dicom_port, ct_series(2))
        wait_until(lambda: gateway.health().get("archived") == 2, "it is in the archive")
    data = open_folder / "data"
    for path in data.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert len(files_others_can_read(data)) >= 3
    with running_gateway(open_folder) as gateway:
        assert files_others_can_read(data) == []
        assert "made_private" in gateway.log.read_text(encoding="utf-8")


def test_every_command_that_works_on_what_is_kept_closes_it_too(open_folder: Path) -> None:
    settings = Settings(data_dir=open_folder / "data")
    database = Database(settings.index_url)
    database.upgrade()
    database.dispose()
    (open_folder / "data" / "spool").mkdir()
    index = open_folder / "data" / "index.sqlite"
    for command in (["retry"], ["tidy"], ["db", "upgrade"]):
        index.chmod(0o644)
        ended = subprocess.run(
            [sys.executable, "-m", "thinfilm_gateway", *command],
            env=os.environ | settings.to_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert files_others_can_read(open_folder / "data") == [], command


@pytest.mark.parametrize("command", ["compress", "expand"])
def test_what_commands_write_is_for_their_user(open_folder: Path, command: str) -> None:
    source = ct_series(1)[0].write(open_folder / "in.dcm")
    thinfilm = [sys.executable, "-m", "thinfilm_gateway"]
    container = open_folder / "out.tfa"
    subprocess.run([*thinfilm, "compress", source, "-o", container, "--codec", "zstd"], check=True, capture_output=True)
    subprocess.run([*thinfilm, "expand", container, "-o", open_folder / "out"], check=True, capture_output=True)
    made = [container] if command == "compress" else [*(open_folder / "out").rglob("*"), open_folder / "out"]
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_what_cannot_be_closed_is_refused_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of another user, in a folder that all can enter."""
    index = tmp_path / "index.sqlite"
    index.touch()
    index.chmod(0o644)
    tmp_path.chmod(0o755)

    def belongs_to_another(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", belongs_to_another)
    with pytest.raises(NotPrivate) as caught:
        make_private(Settings(data_dir=tmp_path))
    assert str(caught.value) == (
        f"Other users can open {index}, and this one cannot close it to them (Operation not permitted); let its owner "
        f"run `chmod go= {index}`, or run as its owner."
    )
    monkeypatch.setattr(Path, "chmod", lambda self, mode: None)  # as on a file system without modes
    with pytest.raises(NotPrivate, match="its file system does not let that be changed; mount it with umask=077"):
        make_private(Settings(data_dir=tmp_path))
    os.chmod(tmp_path, 0o700)  # noqa: PTH101  Path.chmod does nothing here
    make_private(Settings(data_dir=tmp_path))  # the folder around it closes it


def test_a_spool_elsewhere_behind_a_link_is_closed_there(open_folder: Path) -> None:
    elsewhere = open_folder / "disk2"
    elsewhere.mkdir(mode=0o755)
    data = open_folder / "data"
    data.chmod(0o700)
    (data / "spool").symlink_to(elsewhere)
    make_private(Settings(data_dir=data))
    assert elsewhere.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("text", "mode", "warned"),
    [
        ('database_url = "postgresql+psycopg://thinfilm:secret@db/thinfilm"', 0o644, True),
        ('broker_url = "redis://:secret@redis:6379/0"', 0o644, True),
        ('database_url = "postgresql+psycopg://thinfilm:secret@db/thinfilm"', 0o640, False),
        ('database_url = "postgresql+psycopg://thinfilm@db/thinfilm"', 0o644, False),
        ('ae_title = "ARCHIVE"', 0o644, False),
    ],
)
def test_a_settings_file_is_a_secret_that_holds_a_password(tmp_path: Path, text: str, mode: int, warned: bool) -> None:
    file = tmp_path / "thinfilm.toml"
    file.write_text(text)
    file.chmod(mode)
    assert readable_secrets(load(file), file) == ([file] if warned else [])


def test_a_secret_that_all_can_read_is_warned_of_at_the_start_and_not_told(tmp_path: Path) -> None:
    file = tmp_path / "thinfilm.toml"
    file.write_text(f'data_dir = "{tmp_path / "none"}"\nbroker_url = "redis://:topsecret@redis:6379/0"\n')
    file.chmod(0o644)
    command = [sys.executable, "-m", "thinfilm_gateway", "celery", "worker"]
    environment = os.environ | {"THINFILM_CONFIG": str(file)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert f"chmod o= {file}" in ended.stderr
    assert "topsecret" not in ended.stderr


def test_the_key_of_tls_is_looked_at_too(tmp_path: Path) -> None:
    key = tmp_path / "thinfilm.key"
    key.touch()
    key.chmod(0o644)
    assert readable_secrets(Settings(tls_key=key), None) == [key]
    key.chmod(0o640)
    assert readable_secrets(Settings(tls_key=key), None) == []
