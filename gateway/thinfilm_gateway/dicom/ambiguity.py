"""Data sets that two readers may understand in two ways: good to keep as they are, but no ground for a decision."""

from pydicom.datadict import dictionary_VR

from thinfilm_gateway.dicom.element_tree import Elements
from thinfilm_gateway.dicom.tags import tag_name


def why_ambiguous(elements: Elements) -> str:
    """Return a sentence if a data set, or an item in it, can be understood in two ways; empty if not.

    It can where a tag is there twice, since readers keep the first or the last; and where the value of an attribute of
    the standard is bytes though it is a sequence (of VR UN, for example), or a sequence though it is none.
    """
    waiting = [elements]
    while waiting:
        seen: set[int] = set()
        for element in waiting.pop().elements:
            if element.tag in seen:
                return f"{tag_name(element.tag)} is there twice."
            seen.add(element.tag)
            is_sequence = isinstance(element.value, list)
            expected = _is_sequence_by_dictionary(element.tag)
            if expected is not None and expected != is_sequence and not _is_empty(element.value):
                return f"{tag_name(element.tag)} is {'a' if is_sequence else 'no'} sequence, against the standard."
            waiting += element.value if isinstance(element.value, list) else []
    return ""


def _is_sequence_by_dictionary(tag: int) -> bool | None:
    """Tell whether an attribute of the standard is a sequence; None for those that it does not know."""
    try:
        return bool(dictionary_VR(tag) == "SQ")
    except KeyError:
        return None


def _is_empty(value: object) -> bool:
    return isinstance(value, bytes | memoryview) and len(value) == 0
