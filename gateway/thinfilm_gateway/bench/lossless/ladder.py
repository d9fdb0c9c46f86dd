"""What a container keeps of a stack: the smallest stream of each group among the codecs of the settings."""

import io
from concurrent.futures import ThreadPoolExecutor
from time import process_time

import numpy as np

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_gateway import config
from thinfilm_gateway.archive.container.format import SECTION_HEADER_BYTES, Section
from thinfilm_gateway.archive.container.frames import prepare_stack, write_stack
from thinfilm_gateway.archive.container.report import stack_bytes
from thinfilm_gateway.archive.container.writer import ContainerWriter
from thinfilm_gateway.bench.entrant import Coded, Entrant
from thinfilm_gateway.policy.lossless import treatment


class Ladder(Entrant):
    """The gateway's own way: candidates measured on a sample, the chosen ones fitted, each group proven."""

    def encode(self, stack: PixelBlock) -> Coded:
        """Write the stack as into a container. Raises ValueError if one of the codecs failed."""
        candidates = treatment(config.load().lossless_codecs).candidates()
        file = io.BytesIO()
        begin = process_time()
        prepared = prepare_stack(stack, candidates)
        fitting_seconds = process_time() - begin
        with ThreadPoolExecutor(1) as pool:
            written = write_stack(prepared, ContainerWriter(file), pool, lambda frames: None)
        if written.failures:
            raise ValueError("; ".join(written.failures))
        return Coded((written.stack, file.getvalue()), stack_bytes(written.stack), fitting_seconds)

    def decode(self, coded: Coded, layout: BlockLayout) -> SampleArray:
        """Decode all groups, each by its codec."""
        stack, data = coded.payload

        def payload(section: Section | None) -> bytes:
            begin = section.offset + SECTION_HEADER_BYTES if section else 0
            return data[begin : begin + section.length] if section else b""

        decoded = []
        for group in stack.groups:
            used = stack.codecs[group.codec]
            stream, parameters = payload(group.section), payload(used.parameters)
            decoded.append(registry.decoder(used.codec_id).decode(stream, layout.with_frames(group.frames), parameters))
        return np.concatenate(decoded)
