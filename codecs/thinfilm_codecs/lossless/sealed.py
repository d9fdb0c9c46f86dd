"""The seal around every classical stream: a CRC-32C, so that damage never reaches a library or a caller.

Format: docs/formats/classical.md.
"""

import struct

import google_crc32c

from thinfilm_codecs.errors import CorruptStream

_SEAL = struct.Struct("<I")


def seal(payload: bytes) -> bytes:
    """Return the payload behind its checksum."""
    return _SEAL.pack(google_crc32c.value(payload)) + payload


def unseal(stream: bytes) -> bytes:
    """Return the payload of a sealed stream. Raises CorruptStream if it is not as it was sealed."""
    if len(stream) < _SEAL.size:
        raise CorruptStream(f"The stream ends after {len(stream)} bytes, within its checksum.")
    payload = bytes(stream[_SEAL.size :])
    (expected,) = _SEAL.unpack_from(stream)
    if google_crc32c.value(payload) != expected:
        raise CorruptStream("The checksum of the stream does not match its bytes.")
    return payload
