"""The search measures candidates on a bounded sample and puts the smallest first."""

from typing import ClassVar

import numpy as np
import pytest

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_codecs.lossless.search import SAMPLE_BUDGET, Choice, choose


def choice(stack: PixelBlock, *candidates: str) -> Choice:
    return choose(stack, [registry.get(codec_id) for codec_id in candidates])


def ids(stack: PixelBlock, *candidates: str) -> list[list[str]]:
    """Return the tiers."""
    return [[codec.codec_id for codec in tier] for tier in choice(stack, *candidates).tiers]


def smooth(frames: int = 4, size: int = 64) -> PixelBlock:
    y, x = np.mgrid[:size, :size]
    noise = np.random.default_rng(0).integers(0, 9, (frames, size, size))
    return PixelBlock((x * 11 + y * 7 + noise).astype(np.uint16), 12)


class Probe(Codec):
    """A codec of our own, to see what the search asks of one."""

    codec_id: ClassVar[str] = "probe"

    def __init__(self, size: int = 0, frames: int = 3, parameters: int = 0, error: Exception | None = None) -> None:
        self.size, self.frames, self.parameters, self.error = size, frames, parameters, error
        self.seen: list[SampleArray] = []
        self.quick: Probe | None = None

    def tuned(self, preset: str, device: str) -> "Probe":
        return self.quick if self.quick and preset == "fast" else self

    def supports(self, layout: BlockLayout) -> bool:
        return layout.components == 1

    def frames_per_group(self, layout: BlockLayout) -> int:
        return min(self.frames, layout.frames)

    def prepare(self, stack: PixelBlock) -> bytes:
        return bytes(self.parameters)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        assert len(parameters) == self.parameters
        if self.error:
            raise self.error
        self.seen.append(group.samples)
        return bytes(self.size)

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        raise NotImplementedError


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    codec = Probe()
    monkeypatch.setitem(registry._CODECS, "probe", codec)
    return codec


def size_with(codec_id: str, stack: PixelBlock) -> int:
    codec = registry.get(codec_id)
    step = codec.frames_per_group(stack.layout)
    return sum(len(codec.encode(stack.frames(f, step), b"")) for f in range(0, stack.layout.frames, step))


END = ["zstd", "raw"]


def test_the_smallest_comes_first_with_the_rivals_that_may_win_a_group_and_zstd_and_raw_close_the_list() -> None:
    tiers = ids(smooth(), "htj2k", "jpegxl", "jpegls")
    assert tiers[0][0] == min(("htj2k", "jpegxl", "jpegls"), key=lambda codec_id: size_with(codec_id, smooth()))
    assert {"jpegls", "zstd"} <= set(tiers[0])
    assert tiers[-1] == END
    assert {codec_id for tier in tiers for codec_id in tier} == {"htj2k", "jpegxl", "jpegls", *END}


def test_zstd_may_come_first() -> None:
    text_like = np.tile(np.random.default_rng(1).integers(0, 65536, 1024).astype(np.uint16), 64).reshape(1, 64, 1024)
    assert ids(PixelBlock(text_like, 16), "jpegls", "htj2k") == [["zstd", "jpegls"], ["htj2k"], END]


@pytest.mark.parametrize(("share", "rivals"), [(1.02, ["probe"]), (1.2, [])])
def test_a_codec_is_a_rival_only_if_it_is_near_the_best_on_the_sample(
    probe: Probe, share: float, rivals: list[str]
) -> None:
    best, second = sorted(size_with(codec_id, smooth()) for codec_id in ("jpegls", "zstd"))
    assert second > best
    probe.frames, probe.size = 4, int(share * best)
    tiers = ids(smooth(), "jpegls", "probe")
    assert tiers[0] == [*sorted(["jpegls", *rivals], key="jpegls".__ne__), "zstd"]
    assert (["probe"] in tiers) == (not rivals)


def test_a_codec_that_must_be_fitted_is_tried_only_where_it_may_win(probe: Probe) -> None:
    best = size_with("jpegls", smooth())
    for share, expected in (
        (0.9, True),
        (1.02, True),
        (1.29, True),
        (1.32, False),
    ):  # it is measured in its fastest preset
        probe.quick = Probe(int(share * best), 4)
        tiers = ids(smooth(), "jpegls", "probe")
        assert (tiers[0][0] == "probe") == expected
        assert any("probe" in tier for tier in tiers) == expected


def test_a_single_candidate_is_not_measured_and_has_no_rival(probe: Probe) -> None:
    assert ids(smooth(), "probe") == [["probe"], END]
    assert not probe.seen


def test_a_candidate_that_does_not_support_the_layout_is_left_out(probe: Probe) -> None:
    colour = PixelBlock(np.zeros((1, 20, 20, 3), np.uint8), 8)
    assert ids(colour, "probe") == [END]
    assert ids(colour, "probe", "jpegls", "jpegls") == [["jpegls"], END]


def test_a_candidate_that_refuses_the_sample_is_left_out(probe: Probe) -> None:
    probe.error = UnsupportedPixels("Too wide.")
    assert ids(smooth(), "probe", "jpegls") == [["jpegls", "zstd"], END]
    assert choice(smooth(), "probe", "jpegls").failures == ()


def test_a_candidate_with_a_fault_is_left_out_and_named(probe: Probe) -> None:
    probe.error = ZeroDivisionError("a fault of the codec")
    assert ids(smooth(), "probe", "jpegls") == [["jpegls", "zstd"], END]
    assert choice(smooth(), "probe", "jpegls").failures == ("probe: a fault of the codec",)


def test_parameters_count_by_the_share_of_the_sample(probe: Probe) -> None:
    stack = smooth(frames=800, size=64)  # 3.3 million samples: the sample is about 60 % of it
    jpegls = size_with("jpegls", stack)
    probe.parameters = int(jpegls * 0.9)
    assert ids(stack, "jpegls", "probe")[0][0] == "probe"
    probe.parameters = int(jpegls * 1.1)
    assert ids(stack, "jpegls", "probe")[0][0] == "jpegls"


def test_the_sample_is_bounded_and_spread_over_the_stack(probe: Probe) -> None:
    samples = np.broadcast_to(np.arange(300, dtype=np.uint16)[:, None, None], (300, 256, 256))
    choice(PixelBlock(samples, 12), "probe", "zstd")
    frames = [int(group[0, 0, 0]) for group in probe.seen]
    assert sum(group.size for group in probe.seen) <= SAMPLE_BUDGET
    assert all(len(group) == 3 for group in probe.seen)
    assert frames[0] == 0
    assert frames[-1] == 297
    assert frames == sorted(frames)


def test_of_a_frame_beyond_the_budget_the_middle_rows_are_the_sample(probe: Probe) -> None:
    samples = np.broadcast_to(np.arange(3000, dtype=np.uint16)[None, :, None], (2, 3000, 2000))
    choice(PixelBlock(samples, 12), "probe", "zstd")
    assert [group.shape for group in probe.seen] == [(1, 1000, 2000)]
    assert int(probe.seen[0][0, 0, 0]) == 1000
