"""Read out of a Part 10 file of spool or archive what the receiver knew of the object when it came."""

import datetime as dt
import hashlib
import mmap
import os
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset

from thinfilm_gateway.archive.spool import Spool, promised_sha256
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline
from thinfilm_gateway.dicom.inflating import SYSTEM_SCRATCH, Scratch
from thinfilm_gateway.index.ingest import Received, UnindexableDataSet, required_uids

DAMAGED = "The spool file no longer has the bytes that were received."


class NotReceived(Exception):
    """The file is none that a receiver has written; the message is one sentence."""


def read_received(
    file: memoryview, spool_name: str | None, otherwise_received_at: dt.datetime, scratch: Scratch = SYSTEM_SCRATCH
) -> Received:
    """Return what `file` says of itself. otherwise_received_at: taken where the file does not tell when it came.

    scratch: where a deflated data set is inflated. Raises NotReceived, CannotInflate.
    """
    header = part10.locate(file)
    if header is None:
        raise NotReceived("It has no DICOM file header.")
    with file[header.dataset_offset :] as dataset:
        try:
            attributes = outline(dataset, header.transfer_syntax_uid, scratch).attributes
            required_uids(attributes)
        except (UnreadableDataSet, UnindexableDataSet) as error:
            raise NotReceived(str(error)) from error
        return Received(
            attributes=attributes,
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            sha256=hashlib.sha256(dataset).hexdigest(),
            dataset_bytes=len(dataset),
            dataset_offset=header.dataset_offset,
            spool_name=spool_name,
            sender_ae_title=header.source_ae_title,
            sender_address=header.source_address,
            received_at=header.received_at or otherwise_received_at,
        )


def read_file(path: Path, spool_name: str | None, otherwise_received_at: dt.datetime | None = None) -> Received:
    """Return what the file at `path` says of itself. otherwise_received_at: its own time, where not given.

    Raises NotReceived, FileNotFoundError, OSError.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not status.st_size:
            raise NotReceived("It is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping, memoryview(mapping) as view:
            written_at = dt.datetime.fromtimestamp(status.st_mtime, dt.UTC)
            return read_received(view, spool_name, otherwise_received_at or written_at, Scratch(path.parent))


def without_private(received: Received) -> Received:
    """Leave out the private elements, of which the index keeps nothing."""
    elements = received.attributes.values()  # as read: looking at one through the data set would decode it
    return replace(
        received, attributes=Dataset({element.tag: element for element in elements if element.tag.group % 2 == 0})
    )


@dataclass(frozen=True)
class Spooled:
    """A spool file as it was received. is_damaged: its data set no longer has `received.sha256`."""

    received: Received
    is_damaged: bool


def read_spooled(spool: Spool, name: str) -> Spooled:
    """Return what a spool file says of itself, with the SHA-256 that it was received with.

    Raises NotReceived, FileNotFoundError, OSError.
    """
    return _spooled(spool.path(name), name)


def read_resent(spool: Spool, name: str) -> Spooled:
    """Do the same for a file that was set aside. Raises NotReceived, FileNotFoundError, OSError."""
    return _spooled(spool.resent_path(name), name)


def _spooled(path: Path, name: str) -> Spooled:
    received = read_file(path, name)
    sha256 = promised_sha256(name)
    return Spooled(replace(received, sha256=sha256), received.sha256 != sha256)
