"""Further attributes that are found and told (PS3.4 C.2.2.1.3, optional keys), each level's as JSON in its row.

`attributes` holds {keyword: [value, ...]}, text as received without padding; absent and empty ones are left out.
`attributes_folded` holds, of those whose values are matched in another form, {keyword: [[form, ...], ...]}. The
database looks into both where such a key is asked for. No index leads there: each row that other keys leave is read.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from sqlalchemy import select
from sqlalchemy.orm import Session

from thinfilm_gateway.dicom.values import text
from thinfilm_gateway.index.folding import date_time_span, fold, fold_date, fold_person_name, fold_time
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.matching import GROUPS, Condition, Matching, condition
from thinfilm_gateway.index.models import storable
from thinfilm_gateway.index.sql import json_items, json_member

# The one list: an attribute that is added is kept of what arrives from then on, and of all else after a reindex.
FURTHER_KEYS: dict[Level, tuple[str, ...]] = {
    Level.PATIENT: ("PatientBirthTime", "OtherPatientIDs", "OtherPatientNames", "EthnicGroup", "PatientComments"),
    Level.STUDY: (
        "PatientAge", "PatientSize", "PatientWeight", "Occupation", "AdditionalPatientHistory",
        "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician", "RequestedProcedureDescription",
        "AdmittingDiagnosesDescription",
    ),
    Level.SERIES: (
        "SeriesDate", "SeriesTime", "ProtocolName", "PatientPosition", "ViewPosition", "PerformingPhysicianName",
        "OperatorsName", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
        "StationName", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "ContrastBolusAgent",
        "SequenceName", "ScanningSequence", "SequenceVariant", "MRAcquisitionType",
        "AcquisitionDeviceProcessingDescription", "PerformedProcedureStepID", "PerformedProcedureStepDescription",
        "FrameOfReferenceUID", "SeriesType", "ImagesInAcquisition", "NumberOfTemporalPositions",
    ),
    Level.IMAGE: (
        "ImageType", "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime",
        "InstanceCreationDate", "InstanceCreationTime", "TemporalPositionIdentifier", "ImageComments",
        "ImageLaterality", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "SliceThickness",
        "SpacingBetweenSlices", "PixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
        "BitsStored", "WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope", "LossyImageCompression",
        "ContentLabel", "ContentDescription", "ContentCreatorName", "CompletionFlag", "VerificationFlag",
    ),
}  # fmt: skip

TOLD_OF_STUDIES = frozenset(
    ("InstitutionName", "InstitutionalDepartmentName", "StationName", "Manufacturer", "ManufacturerModelName")
)
"""Attributes of series that are asked of studies: there they are those of the first series that has them."""

_MATCHING = {
    **dict.fromkeys(("LO", "SH", "LT", "ST"), Matching.FOLDED),
    **dict.fromkeys(("AS", "CS"), Matching.TEXT),
    **dict.fromkeys(("DS", "IS", "US"), Matching.DECIMAL),
    "DA": Matching.DATE,
    "DT": Matching.DATE_TIME,
    "PN": Matching.NAME,
    "TM": Matching.TIME,
    "UI": Matching.UID,
}
_FORMS: dict[Matching, Callable[[str], Sequence[str]]] = {
    Matching.FOLDED: lambda value: (fold(value),),
    Matching.DATE: lambda value: (fold_date(value),),
    Matching.DATE_TIME: lambda value: (date_time_span(value)[0],),
    Matching.TIME: lambda value: (fold_time(value),),
    Matching.NAME: fold_person_name,
}
_PLACES = {suffix: str(place) for place, suffix in enumerate(GROUPS)} | {"_folded": "0"}  # of a form, by its suffix
_OF_ONE_VALUE = ("LT", "ST")  # a backslash is a character there (PS3.5 6.2)


def _vr(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is no attribute."
    return str(dictionary_VR(tag))


MATCHING = {keyword: _MATCHING[_vr(keyword)] for keywords in FURTHER_KEYS.values() for keyword in keywords}
"""How the values of a further key are matched."""

_SINGLE = frozenset(keyword for keyword in MATCHING if _vr(keyword) in _OF_ONE_VALUE)


def attribute_columns(dataset: Dataset, level: Level) -> dict[str, str]:
    """Return the columns that keep the further attributes of a level."""
    kept: dict[str, list[str]] = {}
    folded: dict[str, list[Sequence[str]]] = {}
    for keyword in FURTHER_KEYS[level]:
        whole = storable(text(dataset, keyword))
        if not whole:
            continue
        kept[keyword] = [whole] if keyword in _SINGLE else [value.strip() for value in whole.split("\\")]
        if forms := _FORMS.get(MATCHING[keyword]):
            folded[keyword] = [forms(value) for value in kept[keyword]]
    return {"attributes": _json(kept), "attributes_folded": _json(folded)}


def further_column(session: Session, entity: Any, keyword: str) -> Any:
    """Return the values of a further key as a column, which `values_of` reads."""
    return json_member(session, entity.attributes, keyword)


def values_of(column: str | None) -> str:
    """Return the text that `further_column` gives: values joined by backslashes, "" where there are none."""
    return "\\".join(json.loads(column)) if column else ""


def further_condition(session: Session, keyword: str, values: Sequence[str], entity: Any) -> Condition | None:
    """Return the condition that one of the values of a further key matches one of `values`; None if all do.

    Raises InvalidIdentifier for a value that is none of its kind.
    """
    matching = MATCHING[keyword]
    is_folded = matching in _FORMS
    items = json_items(session, entity.attributes_folded if is_folded else entity.attributes, keyword)
    matched = condition(
        session, matching, keyword, values, lambda suffix: items.member(_PLACES[suffix]) if suffix else items.text
    )
    return None if matched is None else select(items.text).select_from(items.table).where(matched).exists()


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) if values else "{}"
