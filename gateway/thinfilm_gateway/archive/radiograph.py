"""Which radiographs may be mammograms: these come as CR and DX too, and say so in many places, or nowhere."""

import re
from collections.abc import Iterator

from thinfilm_gateway.dicom.element_tree import Elements
from thinfilm_gateway.dicom.tags import (
    ANATOMIC_REGION_SEQUENCE,
    BODY_PART_EXAMINED,
    CODE_MEANING,
    CODE_VALUE,
    VIEW_CODE_SEQUENCE,
    VIEW_POSITION,
)

_TOLD = (
    0x00081030,  # Study Description
    0x0008103E,  # Series Description
    BODY_PART_EXAMINED,
    0x00181030,  # Protocol Name
    0x00181400,  # Acquisition Device Processing Description
    0x00181508,  # Positioner Type, MAMMOGRAPHIC
    0x00321060,  # Requested Procedure Description
    0x00400254,  # Performed Procedure Step Description
    0x00400318,  # Organ Exposed
)
"""Attributes in whose text a breast is named, if one is."""

_CODED = (
    0x00081032,  # Procedure Code Sequence
    ANATOMIC_REGION_SEQUENCE,  # of the image, and in Frame Anatomy Sequences
    0x00082228,  # Primary Anatomic Structure Sequence
    0x00321064,  # Requested Procedure Code Sequence
    VIEW_CODE_SEQUENCE,
    0x00540222,  # View Modifier Code Sequence, also in items of the View Code Sequence
)
"""Sequences of codes of which the value or the meaning tells of a breast, if it is one."""

_OF_MAMMOGRAPHY_ALONE = (
    0x00281300,  # Breast Implant Present
    0x00281350,  # Partial View, its description and its codes
    0x00281351,
    0x00281352,
)
"""Attributes of the Mammography Image Module (PS3.3 C.8.11.7) that nothing else has."""

_BREAST = re.compile(r"BREAST|MAMM", re.IGNORECASE)
_BREAST_VIEW = re.compile(r"[LR]?[ -]?(X?CC[LM]?|MLO|LMO|ML|LM|FB|SIO|ISO)", re.IGNORECASE)
_BREAST_REGIONS = re.compile(r"T-04[0-9A-F]{3}")  # all of the breast in SNOMED before it had numbers
_BREAST_CODES = frozenset(
    (
        # breast, both, right, left, entire; its quadrants are told by their meaning
        *("76752008", "63762007", "73056007", "80248007", "181131000"),
        # the views of mammography (CID 4014)
        *("399260004", "399368009", "399352003", "399099002", "399162004", "399196006"),
        *("399188001", "441555000", "399192008", "399101009", "127457009"),
        *("R-10224", "R-10226", "R-10228", "R-10230", "R-10242", "R-10244"),
        *("R-102D0", "R-40AAA", "R-1024A", "R-1024B", "G-8310"),
    )
)

_BODY_PARTS = frozenset(
    (
        *("HEAD", "HEADNECK", "SKULL", "JAW", "MANDIBLE", "MAXILLA", "ORBIT", "SINUS", "ZYGOMA", "NECK"),
        *(
            "CHEST",
            "THORAX",
            "LUNG",
            "HEART",
            "RIB",
            "STERNUM",
            "CLAVICLE",
            "SCAPULA",
            "CHESTABDOMEN",
            "CHESTABDPELVIS",
        ),
        *("ABDOMEN", "ABDOMENPELVIS", "KIDNEY", "PELVIS", "SIJOINT", "HIP", "WHOLEBODY"),
        *("SPINE", "CSPINE", "CTSPINE", "TSPINE", "TLSPINE", "LSPINE", "LSSPINE", "SSPINE", "COCCYX", "SCOLIOSIS"),
        *(
            "EXTREMITY",
            "SHOULDER",
            "ARM",
            "HUMERUS",
            "ELBOW",
            "FOREARM",
            "RADIUS",
            "RADIUSULNA",
            "WRIST",
            "HAND",
            "FINGER",
            "THUMB",
        ),
        *("LEG", "THIGH", "FEMUR", "KNEE", "PATELLA", "TIBIAFIBULA", "ANKLE", "CALCANEUS", "FOOT", "TOE"),
    )
)
"""Terms of Body Part Examined (PS3.16 Annex L) that say that it is no breast."""


def shows_a_breast(elements: Elements) -> bool:
    """Tell whether anything in a data set says that the image is of a breast, or of a view that breasts are seen in."""
    if any(True for tag in _OF_MAMMOGRAPHY_ALONE for _ in elements.having(tag)):
        return True
    if any(_BREAST.search(inner.text(tag)) for tag in _TOLD for inner in elements.having(tag)):
        return True
    if any(_BREAST_VIEW.fullmatch(inner.text(VIEW_POSITION)) for inner in elements.having(VIEW_POSITION)):
        return True
    return any(_is_of_breast(code) for code in _codes(elements))


def names_another_body_part(elements: Elements) -> bool:
    """Tell whether Body Part Examined (0018,0015) is a term that is known, and of no breast."""
    return elements.text(BODY_PART_EXAMINED).upper() in _BODY_PARTS


def _codes(elements: Elements) -> Iterator[Elements]:
    for tag in _CODED:
        for inner in elements.having(tag):
            yield from inner.items(tag)


def _is_of_breast(code: Elements) -> bool:
    value = code.text(CODE_VALUE).upper()
    return (
        value in _BREAST_CODES
        or _BREAST_REGIONS.fullmatch(value) is not None
        or _BREAST.search(code.text(CODE_MEANING)) is not None
    )
