"""ContainerWriter: puts sections one behind the other into a file, then the manifest, its copy and the footer."""

from typing import BinaryIO

from thinfilm_gateway.archive.container.format import (
    MAGIC,
    MANIFEST,
    DamagedContainer,
    Footer,
    Manifest,
    Section,
    footer_bytes,
    section_header,
)
from thinfilm_gateway.archive.container.manifest import manifest_bytes, read_manifest


class ContainerWriter:
    """Writes one container into an open file."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin with the magic."""
        self._file = file
        self._offset = len(MAGIC)
        file.write(MAGIC)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._offset

    def append(self, kind: bytes, payload: bytes) -> Section:
        """Write a section and return where it lies."""
        section = Section(self._offset, len(payload))
        header = section_header(kind, payload)
        self._file.write(header)
        self._file.write(payload)
        self._offset += len(header) + len(payload)
        return section

    def rewind(self, size: int) -> None:
        """Take back all that was written behind the first `size` bytes."""
        self._file.seek(size)
        self._file.truncate()
        self._offset = size

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, its copy and the footer. Raises ValueError for a manifest that readers would refuse."""
        payload = manifest_bytes(manifest)
        footer = footer_bytes(Footer(self.append(MANIFEST, payload), self.append(MANIFEST, payload)))
        self._file.write(footer)
        self._offset += len(footer)
        try:
            same = read_manifest(payload, self._offset) == manifest
        except DamagedContainer as error:
            raise ValueError(str(error)) from None
        if not same:
            raise ValueError("The manifest does not read back as it was written.")
