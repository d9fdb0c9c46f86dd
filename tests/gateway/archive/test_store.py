from pathlib import Path

import pytest

from thinfilm_gateway.archive.store import FolderStore, new_key


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "archive")


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


def test_what_is_put_reads_back_by_ranges_and_the_source_is_gone(tmp_path: Path, store: FolderStore) -> None:
    source, key = file_of(tmp_path, b"0123456789"), new_key()
    store.put(key, source)
    with store.open(key) as reader:
        assert reader.size == 10
        assert reader.read(3, 4) == b"3456"
        assert reader.read(8, 10) == b"89"
        assert reader.read(20, 1) == b""
    assert not source.exists()


def test_a_key_that_is_taken_is_refused_and_both_objects_stay(tmp_path: Path, store: FolderStore) -> None:
    key = new_key()
    store.put(key, file_of(tmp_path, b"first"))
    second = file_of(tmp_path, b"second")
    with pytest.raises(FileExistsError):
        store.put(key, second)
    with store.open(key) as reader:
        assert reader.read(0, 10) == b"first"
    assert second.read_bytes() == b"second"


def test_an_object_from_another_file_system_is_copied_whole(store: FolderStore) -> None:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == store._root.stat().st_dev:
        shared_memory = store._root  # one file system only: the ordinary way must give the same
    source, key = shared_memory / new_key().replace("/", "-"), new_key()
    source.write_bytes(b"from afar")
    store.put(key, source)
    with store.open(key) as reader:
        assert reader.read(0, 100) == b"from afar"
    assert not source.exists()
    assert list(store.keys()) == [key]


def test_keys_lists_objects_in_order_and_nothing_else(tmp_path: Path, store: FolderStore) -> None:
    keys = [new_key() for _ in range(20)]
    for key in keys:
        store.put(key, file_of(tmp_path, key.encode()))
    (tmp_path / "archive" / "stray.txt").write_text("not an object")
    (tmp_path / "archive" / keys[0][:2] / "left.part").write_text("not an object")
    assert list(store.keys()) == sorted(keys)


def test_a_deleted_object_is_gone(tmp_path: Path, store: FolderStore) -> None:
    key = new_key()
    store.put(key, file_of(tmp_path, b"x"))
    store.delete(key)
    assert list(store.keys()) == []
    with pytest.raises(FileNotFoundError):
        store.open(key)
    with pytest.raises(FileNotFoundError):
        store.delete(key)


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", "ab/cd.tfa", "/ab/" + 32 * "a" + ".tfa", "ab/" + 32 * "A" + ".tfa"]
)
def test_a_key_of_another_form_never_reaches_the_file_system(tmp_path: Path, store: FolderStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.open(key)
    with pytest.raises(ValueError, match="not a key"):
        store.put(key, file_of(tmp_path, b"x"))
    with pytest.raises(ValueError, match="not a key"):
        store.delete(key)


def test_keys_are_random_and_spread_over_folders() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert len({key[:2] for key in keys}) > 200
