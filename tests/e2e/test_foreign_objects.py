"""Objects with other software's faults: back as received, and right or refused in each native transfer syntax.

What is right is told by pydicom and Pillow, which share no code with the gateway's readers.
"""

import io
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from support.query_retrieve import Received, get, identifier
from support.sites import Site
from thinfilm_gateway.client import network
from thinfilm_gateway.client.files import DicomFile, NotSendable, read
from thinfilm_gateway.commands.compress import compress, sources
from thinfilm_gateway.commands.expand import expand
from thinfilm_gateway.dicom import part10

CORPUS = Path(__file__).parents[1] / "corpus" / "objects"
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
REFUSALS = (0xA900, 0xC000)

# What tells of the encoding of the pixels, or holds pixels, and so is otherwise in another transfer syntax.
OF_THE_ENCODING = {
    "PixelData",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "IconImageSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "EncapsulatedPixelDataValueTotalLength",
}
LOSSY_DIFFERENCE = 6  # between two decoders of lossy JPEG in colour, which round otherwise


@pytest.fixture(scope="module")
def files() -> list[DicomFile]:
    """The corpus, and the files of THINFILM_DATA, one for each SOP Instance UID."""
    folders = [CORPUS, *map(Path, filter(None, [os.environ.get("THINFILM_DATA")]))]
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return list({file.sop_instance_uid: file for file in reversed(list(sendable(paths)))}.values())


def test_compress_and_expand_give_every_file_back(tmp_path: Path, files: list[DicomFile]):
    """Each file by itself, so that none hides behind the others."""
    for number, file in enumerate(files):
        archive, back = tmp_path / f"{number}.tfa", tmp_path / str(number)
        compress(sources([file.path]), archive, ("jpegls",))
        expand(archive, back)
        assert (back / file.path.name).read_bytes() == file.path.read_bytes(), file.path.name


@pytest.mark.timeout(3600)
def test_every_object_comes_back_as_received_and_natively_right_or_not_at_all(embedded: Site, files: list[DicomFile]):
    sent = network.store(embedded.gateway.node, files)
    assert {answer.status for answer in sent} <= {0, *REFUSALS}
    kept = [answer.file for answer in sent if answer.status == 0]
    embedded.await_archived()

    (as_received,) = zip(*(retrieve(embedded, file, file.transfer_syntax_uid) for file in kept), strict=True)
    assert [one.dataset for one in as_received] == [bytes(file.dataset()) for file in kept]

    wrong = {
        (file.path.name, syntax.name): found
        for file in kept
        for syntax in NATIVE
        for delivered in retrieve(embedded, file, syntax)  # none, where it was refused
        if (found := faults(file, delivered))
    }
    assert wrong == {}


def sendable(paths: Iterable[Path]) -> Iterator[DicomFile]:
    for path in paths:
        try:
            yield read(path)
        except NotSendable:
            continue


def retrieve(site: Site, file: DicomFile, syntax: str) -> list[Received]:
    """C-GET one instance over a context of one transfer syntax; what does not come is counted as failed."""
    keys = identifier(
        "IMAGE",
        StudyInstanceUID=file.study_instance_uid,
        SeriesInstanceUID=file.series_instance_uid,
        SOPInstanceUID=file.sop_instance_uid,
    )
    operation = get(site.port, keys, [(file.sop_class_uid, [syntax])])
    assert len(operation.received) + operation.counts[2] == 1, operation.final
    return operation.received


def faults(file: DicomFile, delivered: Received) -> list[str]:
    """Name the elements, pixels among them, in which the delivered object is another than the one that was sent."""
    header = part10.build(file.sop_class_uid, file.sop_instance_uid, delivered.transfer_syntax_uid)
    ours = opened(io.BytesIO(header + delivered.dataset))
    try:
        original = opened(file.path)
    except Exception:  # the reference cannot read what was sent; it can at least read what is delivered
        return []
    theirs = dict(elements(ours))
    different = [name for name, value in elements(original) if name not in ours or theirs.get(name, value) != value]
    if "PixelData" in original and not has_same_pixels(original, ours):
        different.append("PixelData")
    return different


def opened(source: Path | io.BytesIO) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(source, force=True)


def elements(dataset: Dataset) -> list[tuple[str | int, Any]]:
    """Give what can be read in any encoding: keyword or tag, and value; not what is of the encoding itself.

    Nothing says the VR of a private element in Implicit VR, so that one is not read.
    """
    found: list[tuple[str | int, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag in dataset.keys():  # noqa: SIM118  a data set iterates over its elements
            try:
                element = dataset[tag]
            except Exception:  # pydicom raises whatever the value leads it to
                continue
            if tag.element and element.VR not in ("UN", "SQ") and element.keyword not in OF_THE_ENCODING:
                found.append((element.keyword or tag, element.value))
    return found


def has_same_pixels(original: Dataset, ours: Dataset) -> bool:
    delivered = pixels(ours)
    try:
        wanted = pixels(original)
    except Exception:  # a stream that the reference cannot read: at least it must be what the attributes say
        return delivered is not None
    if delivered is None or wanted is None:
        return delivered is wanted
    limit = LOSSY_DIFFERENCE if original.file_meta.TransferSyntaxUID == JPEGBaseline8Bit else 0
    half = 2 ** (original.BitsStored - 1)  # a lossy decoder may leave the range of the samples
    wanted = wanted.clip(-half, half - 1) if original.PixelRepresentation else wanted.clip(0, 2 * half - 1)
    count = min(wanted.size, delivered.size)
    difference = wanted.reshape(-1)[:count].astype(np.int64) - delivered.reshape(-1)[:count]
    return bool(np.abs(difference).max(initial=0) <= limit)


def pixels(dataset: Dataset) -> npt.NDArray[Any] | None:
    """Decode, colour to RGB; None for no image. Raises whatever the reference decoder does."""
    if "Rows" not in dataset:
        return None
    if dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
        frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        return np.stack([np.asarray(PIL.Image.open(io.BytesIO(frame))) for frame in frames])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dataset.pixel_array
