"""Containers written long ago must read for ever."""

import hashlib
import json
from pathlib import Path

import pytest

from support.containers import open_bytes

GOLDEN = Path(__file__).parent / "golden"
EXPECTED: dict[str, dict[str, str]] = json.loads((GOLDEN / "expected.json").read_text())


def test_every_golden_container_is_expected() -> None:
    assert sorted(path.name for path in GOLDEN.glob("*.tfa")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_golden_container_gives_the_files_that_went_in(name: str) -> None:
    container = open_bytes((GOLDEN / name).read_bytes())
    found = {
        entry.name: hashlib.sha256(b"".join(container.stream(number))).hexdigest()
        for number, entry in enumerate(container.entries)
    }
    assert found == EXPECTED[name]
    assert container.verify() == []


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_golden_container_uses_the_codec_it_is_called_after(name: str) -> None:
    container = open_bytes((GOLDEN / name).read_bytes())
    codecs = {codec.codec_id for stack in container.manifest.stacks for codec in stack.codecs}
    assert name.removeprefix("v1-").removesuffix(".tfa").partition("-")[0] in codecs
