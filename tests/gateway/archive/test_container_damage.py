"""Whatever happens to the bytes of a container, it gives the original bytes or says that it cannot."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from support.containers import PLAIN, BytesReader, open_bytes
from support.part10_files import slice_samples, write_image, write_series
from thinfilm_gateway.archive.container.format import (
    FOOTER_BYTES,
    FRAMES,
    LITERALS,
    MAGIC,
    MANIFEST,
    PARAMETERS,
    SECTION_HEADER_BYTES,
    DamagedContainer,
    Entry,
    Footer,
    LiteralRun,
    Manifest,
    Section,
    footer_bytes,
    section_header,
)
from thinfilm_gateway.archive.container.pack import Source, pack
from thinfilm_gateway.archive.container.reader import sections

MIB = 1024 * 1024
CORPUS = sorted((Path(__file__).parents[2] / "corpus" / "containers").iterdir())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in _paths(tmp_path_factory.mktemp("files"))]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Three slices in one stack, an image of another series, a long text in a literal group of its own, a short one."""
    folder = tmp_path_factory.mktemp("packed")
    pack([Source(path, path.name) for path in _paths(folder)], folder / "x.tfa", PLAIN)
    return (folder / "x.tfa").read_bytes()


def _paths(folder: Path) -> list[Path]:
    paths = [*write_series(folder / "series", 3), write_image(folder / "other", slice_samples(9), series_uid="2.25.7")]
    for name, content in (("long", b"a long text " * 100_000), ("short", b"a short text")):
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    return paths


def read_all(data: bytes) -> list[bytes | None]:
    """Return the content of each entry, None where it is refused. Raises DamagedContainer if the whole is refused."""
    container = open_bytes(data)
    contents: list[bytes | None] = []
    for number in range(len(container.entries)):
        try:
            contents.append(b"".join(container.stream(number)))
        except DamagedContainer:
            contents.append(None)
    return contents


def found_wrong(data: bytes) -> bool:
    """Tell whether opening or verifying a container finds damage."""
    try:
        return bool(open_bytes(data).verify())
    except DamagedContainer:
        return True


def needs(manifest: Manifest, entry: Entry, section: Section) -> bool:
    for piece in entry.pieces:
        if isinstance(piece, LiteralRun):
            if manifest.literals[piece.group].section == section:
                return True
        else:
            stack = manifest.stacks[piece.stack]
            touched = [
                group.section
                for start, group in zip(stack.group_starts, stack.groups, strict=True)
                if start < piece.first + piece.count and piece.first < start + group.frames
            ]
            if section in (*touched, *(codec.parameters for codec in stack.codecs)):
                return True
    return False


def test_damage_in_any_section_loses_only_the_entries_that_need_it(packed: bytes, files: list[bytes]) -> None:
    container = open_bytes(packed)
    for kind, section in sections(BytesReader(packed)):
        lost = [index for index, entry in enumerate(container.entries) if needs(container.manifest, entry, section)]
        assert bool(lost) == (kind in (LITERALS, FRAMES, PARAMETERS))
        for position in (0, 5, 9, SECTION_HEADER_BYTES, SECTION_HEADER_BYTES + section.length - 1):
            data = bytearray(packed)
            data[section.offset + position] ^= 0x40
            expected = [None if index in lost else content for index, content in enumerate(files)]
            assert read_all(bytes(data)) == expected, (kind, section, position)
            assert found_wrong(bytes(data))


def test_damage_in_magic_or_footer_loses_nothing_and_is_told(packed: bytes, files: list[bytes]) -> None:
    for position in (*range(len(MAGIC)), *range(len(packed) - FOOTER_BYTES, len(packed))):
        data = bytearray(packed)
        data[position] ^= 0x01
        assert read_all(bytes(data)) == files
        assert found_wrong(bytes(data))


def test_bytes_behind_the_footer_lose_nothing_and_are_told(packed: bytes, files: list[bytes]) -> None:
    assert read_all(packed + b"surplus") == files
    assert found_wrong(packed + b"surplus")


def test_a_lost_footer_loses_nothing(packed: bytes, files: list[bytes]) -> None:
    assert read_all(packed[:-FOOTER_BYTES]) == files


@pytest.mark.parametrize("data", [b"", b"\0", MAGIC, b"not a container at all, but long enough to hold one" * 10])
def test_what_is_no_container_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedContainer):
        open_bytes(data)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_container_that_once_was_damaged_gives_only_what_its_manifest_promises(path: Path) -> None:
    data = path.read_bytes()
    try:
        contents, entries = read_all(data), open_bytes(data).entries
    except DamagedContainer:
        return
    for content, entry in zip(contents, entries, strict=True):
        assert content is None or hashlib.sha256(content).hexdigest() == entry.sha256


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found_and_no_wrong_byte_is_given(
    packed: bytes, files: list[bytes], data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(packed) - 1))
    spoilt = bytearray(packed)
    spoilt[position] ^= 1 << data.draw(st.integers(0, 7))
    assert found_wrong(bytes(spoilt))
    for content, original in zip(read_all(bytes(spoilt)), files, strict=True):
        assert content in (original, None)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_cut_joined_and_overwritten_containers_give_no_wrong_byte(
    packed: bytes, files: list[bytes], data: st.DataObject
) -> None:
    spoilt = packed
    for _ in range(data.draw(st.integers(1, 3))):
        first, second = sorted(data.draw(st.lists(st.integers(0, len(spoilt)), min_size=2, max_size=2)))
        match data.draw(st.sampled_from(["cut", "truncate", "insert", "overwrite", "repeat"])):
            case "cut":
                spoilt = spoilt[:first] + spoilt[second:]
            case "truncate":
                spoilt = spoilt[:first]
            case "insert":
                spoilt = spoilt[:first] + data.draw(st.binary(max_size=100)) + spoilt[first:]
            case "overwrite":
                surplus = data.draw(st.binary(max_size=100))
                spoilt = spoilt[:first] + surplus + spoilt[first + len(surplus) :]
            case "repeat":
                spoilt = spoilt[:second] + spoilt[first:]
    try:
        contents = read_all(spoilt)
    except DamagedContainer:
        return
    assert all(content in (original, None) for content, original in zip(contents, files, strict=True))


def forged(packed: bytes, document: Any) -> bytes:
    """Return the container with another manifest, all checksums right."""
    found = list(sections(BytesReader(packed)))
    body = packed[: next(section.offset for kind, section in found if kind == MANIFEST)]
    payload = zstandard.compress(json.dumps(document).encode())
    copy = len(body) + SECTION_HEADER_BYTES + len(payload)
    footer = footer_bytes(Footer(Section(len(body), len(payload)), Section(copy, len(payload))))
    return body + 2 * (section_header(MANIFEST, payload) + payload) + footer


def document_of(packed: bytes) -> Any:
    section = next(section for kind, section in sections(BytesReader(packed)) if kind == MANIFEST)
    start = section.offset + SECTION_HEADER_BYTES
    return json.loads(zstandard.decompress(packed[start : start + section.length]))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every value in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((value, key), *places(item))]


ODD_VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    7,
    100,
    65536,
    2**31,
    2**48,
    2**64,
    10**40,
    0.5,
    "",
    "x",
    [],
    {},
    [0],
    "raw",
    "zstd",
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_forged_manifest_is_refused_or_gives_nothing_wrong_and_takes_no_memory(
    packed: bytes, files: list[bytes], data: st.DataObject
) -> None:
    document = document_of(packed)
    for _ in range(data.draw(st.integers(1, 2))):
        holder, key = data.draw(st.sampled_from(places(document)))
        holder[key] = data.draw(st.sampled_from(ODD_VALUES))
    tracemalloc.start()
    try:
        contents = read_all(forged(packed, document))
    except DamagedContainer:
        contents = []
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 64 * MIB
    assert all(content in (*files, b"", None) for content in contents)


def test_the_same_manifest_forged_reads_as_before(packed: bytes, files: list[bytes]) -> None:
    assert read_all(forged(packed, document_of(packed))) == files
