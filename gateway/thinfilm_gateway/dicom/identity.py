"""What an object says of itself that stays when it is written anew: checked before the new one is sent or proven."""

from collections.abc import Collection

from thinfilm_gateway.dicom.dataset import DataSetOutline
from thinfilm_gateway.dicom.values import text

KEPT_ATTRIBUTES = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality"),
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
)


def why_another(original: DataSetOutline, made: DataSetOutline, changed: Collection[str] = ()) -> str:
    """Return a sentence if `made`, native, is no longer the object that it was made of; empty if it is.

    changed: keywords of KEPT_ATTRIBUTES that must differ.
    """
    for keyword in KEPT_ATTRIBUTES:
        is_kept = text(original.attributes, keyword) == text(made.attributes, keyword)
        if is_kept == (keyword in changed):
            return f"What was made of the object has {'the same' if is_kept else 'another'} {keyword}."
    had_pixels = original.pixel_data is not None or original.encapsulated_pixel_data is not None
    if made.encapsulated_pixel_data is not None or (had_pixels and made.pixel_data is None):
        return "What was made of the object has no native Pixel Data."
    return ""
