"""A whole gateway for a test: `thinfilm serve` in a process of its own, on free ports, in the test's folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinfilm_gateway.client import gateway as own_gateway
from thinfilm_gateway.client.gateway import RunningGateway
from thinfilm_gateway.client.network import echo


@contextlib.contextmanager
def running_gateway(tmp_path: Path, **settings: Any) -> Iterator[RunningGateway]:
    """Run `thinfilm serve` until the block ends; entered once it answers a C-ECHO. The log is tmp_path/serve.log.

    It compresses by JPEG-LS, the quickest, unless told otherwise.
    """
    with own_gateway.running_gateway(tmp_path, **({"lossless_codecs": ("jpegls",)} | settings)) as gateway:
        assert echo(gateway.node), gateway.log.read_text(encoding="utf-8")
        yield gateway
