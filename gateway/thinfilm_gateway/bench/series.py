"""The series below a folder, their frames stacked as the gateway stacks them."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pydicom

from thinfilm_codecs.blocks import BlockLayout, FrameAxis, PixelBlock
from thinfilm_gateway.archive.container.format import DicomHeader
from thinfilm_gateway.archive.container.order import SourceFrames, StackPlan, plan
from thinfilm_gateway.archive.container.pack import source_frames
from thinfilm_gateway.archive.container.survey import Survey, reopen_pixels, survey
from thinfilm_gateway.commands.compress import sources
from thinfilm_gateway.dicom import part10, values
from thinfilm_gateway.dicom.transcode import EXPLICIT_VR_LITTLE_ENDIAN, CannotTranscode, write_native

Place = tuple[float, ...]

_MOSAICS = frozenset(("MOSAIC", "VFRAME"))  # values of Image Type, of Siemens and of United Imaging

_LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51))
"""JPEG baseline and extended: those that can be nothing but lossy."""


class NothingToMeasure(Exception):
    """No image could be read; the message is one sentence."""


@dataclass(frozen=True)
class Piece:
    """Frames `first` to `first + count` of a file with native pixels."""

    path: Path
    dicom: DicomHeader
    first: int
    count: int


@dataclass(frozen=True)
class FileStack:
    """Where the frames of a stack lie; the other fields as in PixelBlock."""

    pieces: tuple[Piece, ...]
    layout: BlockLayout
    bits_stored: int
    frame_axis: FrameAxis
    spacing: tuple[float, float, float] | None

    def read(self) -> PixelBlock:
        """Read the frames, in coding order."""
        samples = []
        for piece in self.pieces:
            pixels = reopen_pixels(piece.path, piece.dicom)
            assert pixels is not None
            samples.append(pixels.block.frames(piece.first, piece.count).samples)
        whole = np.ascontiguousarray(np.concatenate(samples))
        return PixelBlock(whole, self.bits_stored, self.frame_axis, self.spacing)


@dataclass(frozen=True)
class Series:
    """One series.

    name: its folder below the one that was given, with #1, #2 ... where a folder holds several.
    repeats_places: whether a place in the patient occurs more than once: fMRI, diffusion, dynamic contrast, echoes.
    already_lossy: whether an image was compressed lossily before, or comes so encapsulated.
    """

    name: str
    uid: str
    modality: str
    repeats_places: bool
    stacks: tuple[FileStack, ...]
    already_lossy: bool = False

    @property
    def pixels(self) -> int:
        """Number of samples."""
        return sum(stack.layout.samples for stack in self.stacks)

    @property
    def native_bytes(self) -> int:
        """Bytes of the samples, uncompressed."""
        return sum(stack.layout.nbytes for stack in self.stacks)


@dataclass(frozen=True)
class Skipped:
    """A file without a row, and the sentence that says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Image:
    """A file whose pixels can be read; frames.source is its number.

    mosaic: each frame is a whole volume, its slices side by side. lossy: it was compressed lossily before.
    first: the first frame that is taken.
    """

    name: PurePosixPath
    path: Path
    dicom: DicomHeader
    frames: SourceFrames
    mosaic: bool
    lossy: bool
    first: int = 0


def find(
    folder: Path, scratch: Path, slices: int | None, only: Sequence[str], advance: Callable[[int], None]
) -> tuple[list[Series], list[Skipped]]:
    """Return the series below `folder`, and the files that are in none.

    scratch: a folder for decoded copies of encapsulated images; the series need it as long as they are read.
    slices: take of each series the so many middle files by Instance Number, of a series of one file the middle frames.
    only: take files alone whose path below `folder` contains one of these, where there are any.
    advance: is told how many more bytes were looked at. Raises NothingToMeasure and CommandError.
    """
    images: dict[str, list[_Image]] = defaultdict(list)
    skipped = []
    for number, source in enumerate(sources([folder])):
        if only and not any(text in source.name for text in only):
            continue
        try:
            image = _image(number, PurePosixPath(source.name), source.path, scratch)
        except (OSError, CannotTranscode, _NoImageError) as error:
            skipped.append(Skipped(source.name, str(error)))
        else:
            images[image.frames.series or source.name].append(image)
        advance(source.path.stat().st_size)
    if not images:
        raise NothingToMeasure(f"No image could be read below {folder}{_examples(skipped)}.")
    chosen = [_middle(files, slices) for files in images.values()]
    return [_series(name, files) for name, files in _named(chosen, folder.resolve().name)], skipped


def cut(series: Series, pixels: int) -> Series:
    """Return the series with the middle frames of its first stack alone, at least one: so many samples at most."""
    stack = series.stacks[0]
    layout = stack.layout
    count = min(layout.frames, max(1, pixels // (layout.samples // layout.frames)))
    skipped = (layout.frames - count) // 2
    pieces = []
    for piece in stack.pieces:
        first, last = max(0, skipped), min(piece.count, skipped + count)
        if first < last:
            pieces.append(replace(piece, first=piece.first + first, count=last - first))
        skipped -= piece.count
    middle = replace(stack, pieces=tuple(pieces), layout=layout.with_frames(count))
    return replace(series, name=f"{series.name} [{count}]", stacks=(middle,))


class _NoImageError(Exception):
    """A file without pixels that can be read; the message is one sentence."""


def _examples(skipped: Sequence[Skipped]) -> str:
    return f"; {skipped[0].name}: {skipped[0].reason.rstrip('.')}" if skipped else ""


def _image(number: int, name: PurePosixPath, path: Path, scratch: Path) -> _Image:
    """Look at a file; what is encapsulated is decoded into `scratch`.

    Raises OSError, CannotTranscode, _NoImageError.
    """
    found = survey(path)
    if found.dicom is None or found.attributes is None:
        raise _NoImageError("It is no DICOM file that can be read.")
    syntax = found.dicom.transfer_syntax_uid
    if found.pixels is None and values.text(found.attributes, "Rows"):
        path = scratch / f"{number}.dcm"
        _write_decoded(found, found.dicom, path)
        found = survey(path)
    if found.pixels is None or found.dicom is None:
        raise _NoImageError(found.failure or "It has no pixels.")
    assert found.attributes is not None
    image_type = values.text(found.attributes, "ImageType").split("\\")
    return _Image(
        name,
        path,
        found.dicom,
        source_frames(number, found),
        mosaic=not _MOSAICS.isdisjoint(image_type),
        lossy=syntax in _LOSSY_SYNTAXES or values.text(found.attributes, "LossyImageCompression") == "01",
    )


def _write_decoded(found: Survey, dicom: DicomHeader, path: Path) -> None:
    with path.open("wb") as file:
        file.write(part10.build(dicom.sop_class_uid, dicom.sop_instance_uid, EXPLICIT_VR_LITTLE_ENDIAN))
        dataset = found.data[dicom.dataset_offset :]
        write_native(dataset, dicom.transfer_syntax_uid, EXPLICIT_VR_LITTLE_ENDIAN, file)


def _middle(images: list[_Image], slices: int | None) -> list[_Image]:
    """Return the middle files, or the middle frames of a single file."""
    if slices is None:
        return images
    if len(images) > 1:
        ordered = sorted(images, key=lambda image: (image.frames.instance_number or 0, image.frames.source))
        first = max(0, (len(images) - slices) // 2)
        return ordered[first : first + slices]
    (image,) = images
    layout = image.frames.layout
    taken = min(slices, layout.frames)
    frames = replace(image.frames, layout=layout.with_frames(taken))
    return [replace(image, frames=frames, first=(layout.frames - taken) // 2)]


def _named(series: Iterable[list[_Image]], otherwise: str) -> list[tuple[str, list[_Image]]]:
    """Name each series by its folder, by a number besides where a folder has several."""
    folders: dict[str, list[list[_Image]]] = defaultdict(list)
    for images in series:
        parents = {image.name.parent for image in images}
        folder = os.path.commonpath([str(parent) for parent in parents])
        folders[otherwise if folder in (".", "") else folder].append(images)
    return [
        (folder if len(several) == 1 else f"{folder}#{number}", images)
        for folder, several in sorted(folders.items())
        for number, images in enumerate(several, 1)
    ]


def _series(name: str, images: list[_Image]) -> Series:
    by_number = {image.frames.source: image for image in images}
    first = images[0]
    places = Counter(place for image in images for place in _places(image))
    return Series(
        name=name,
        uid=first.frames.series,
        modality=first.dicom.modality or "unknown",
        repeats_places=max(places.values(), default=0) > 1,
        stacks=tuple(_stack(stack, by_number) for stack in plan([image.frames for image in images])),
        already_lossy=any(image.lossy for image in images),
    )


def _stack(stack: StackPlan, images: dict[int, _Image]) -> FileStack:
    pieces = []
    for piece in stack.slices:
        image = images[piece.source]
        pieces.append(Piece(image.path, image.dicom, image.first + piece.first, piece.count))
    return FileStack(tuple(pieces), stack.layout, stack.bits_stored, stack.frame_axis, stack.spacing)


def _places(image: _Image) -> list[Place]:
    """Return where the frames of a file lie, rounded to 0.01 mm, as far as it is told."""
    frames = image.frames
    if image.mosaic:
        return [()] * frames.layout.frames
    if frames.layout.frames == 1:
        return [_rounded(frames.position)] if frames.position else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about values that are not as they should be
        try:
            items = pydicom.dcmread(image.path, stop_before_pixels=True).PerFrameFunctionalGroupsSequence
            positions = [item.PlanePositionSequence[0].ImagePositionPatient for item in items]
            return [_rounded(position) for position in positions[image.first : image.first + frames.layout.frames]]
        except Exception:  # a series is only put into another row of the summary
            return []


def _rounded(position: Iterable[float]) -> Place:
    return tuple(round(float(number), 2) + 0.0 for number in position)
