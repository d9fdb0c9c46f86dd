import numpy as np

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.quality.generations import generations

BLOCK = PixelBlock(np.arange(64, dtype=np.int16).reshape(1, 8, 8), 16)


def test_each_pass_codes_what_the_one_before_decoded_to():
    assert generations(BLOCK, lambda block: block.samples + np.int16(3), 4) == [3.0, 6.0, 9.0, 12.0]


def test_a_codec_that_gives_back_what_it_decoded_is_not_run_again():
    passes = []

    def halved(block):
        passes.append(block)
        return block.samples // 2 * 2

    errors = generations(BLOCK, halved, 100)

    assert len(passes) == 2
    assert errors == [np.sqrt(0.5)] * 100
