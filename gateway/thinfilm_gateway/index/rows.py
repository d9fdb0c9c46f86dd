"""What the tables keep of a data set: the columns of its patient, study, series and instance."""

import hashlib
from typing import Any

from pydicom import Dataset

from thinfilm_gateway.dicom.values import character_set, integer, text
from thinfilm_gateway.index.attributes import attribute_columns
from thinfilm_gateway.index.folding import fold, fold_date, fold_person_name, fold_time
from thinfilm_gateway.index.levels import Level

Row = dict[str, Any]


def patient_identity(attributes: Dataset, study_instance_uid: str) -> str:
    """Return what tells one patient from another: issuer and Patient ID, or, without an ID, the study itself."""
    patient_id = text(attributes, "PatientID")
    parts = ("id", text(attributes, "IssuerOfPatientID"), patient_id) if patient_id else ("study", study_instance_uid)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def description_identity(attributes: Dataset, study_instance_uid: str) -> str:
    """Return what tells one description of a patient from another within a study."""
    described = [text(attributes, keyword) for keyword in ("PatientName", "PatientBirthDate", "PatientSex")]
    parts = (patient_identity(attributes, study_instance_uid), *described)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def patient_row(attributes: Dataset) -> Row:
    """Return the attributes of the patient."""
    return {
        "patient_id": text(attributes, "PatientID"),
        "issuer_of_patient_id": text(attributes, "IssuerOfPatientID"),
        **_name("patient_name", text(attributes, "PatientName")),
        **_date("patient_birth_date", text(attributes, "PatientBirthDate")),
        "patient_sex": text(attributes, "PatientSex"),
        **attribute_columns(attributes, Level.PATIENT),
        "specific_character_set": str(character_set(attributes)),
    }


def study_row(attributes: Dataset) -> Row:
    """Return the attributes of the study."""
    return {
        **_date("study_date", text(attributes, "StudyDate")),
        **_time("study_time", text(attributes, "StudyTime")),
        "accession_number": text(attributes, "AccessionNumber"),
        "study_id": text(attributes, "StudyID"),
        **_folded("study_description", text(attributes, "StudyDescription")),
        **_name("referring_physician_name", text(attributes, "ReferringPhysicianName")),
        **attribute_columns(attributes, Level.STUDY),
        "specific_character_set": str(character_set(attributes)),
    }


def series_row(attributes: Dataset) -> Row:
    """Return the attributes of the series."""
    start_date = text(attributes, "PerformedProcedureStepStartDate")
    start_time = text(attributes, "PerformedProcedureStepStartTime")
    return {
        "modality": text(attributes, "Modality"),
        "series_number": integer(attributes, "SeriesNumber"),
        **_folded("series_description", text(attributes, "SeriesDescription")),
        "body_part_examined": text(attributes, "BodyPartExamined"),
        "laterality": text(attributes, "Laterality"),
        **_date("performed_procedure_step_start_date", start_date),
        **_time("performed_procedure_step_start_time", start_time),
        **attribute_columns(attributes, Level.SERIES),
        "specific_character_set": str(character_set(attributes)),
    }


def instance_row(attributes: Dataset) -> Row:
    """Return the attributes of the instance."""
    return {
        "instance_number": integer(attributes, "InstanceNumber"),
        "rows": integer(attributes, "Rows"),
        "columns": integer(attributes, "Columns"),
        "number_of_frames": integer(attributes, "NumberOfFrames"),
        **_date("content_date", text(attributes, "ContentDate")),
        **_time("content_time", text(attributes, "ContentTime")),
        **attribute_columns(attributes, Level.IMAGE),
    }


def _folded(column: str, value: str) -> Row:
    return {column: value, f"{column}_folded": fold(value)}


def _name(column: str, value: str) -> Row:
    alphabetic, ideographic, phonetic = fold_person_name(value)
    return {
        column: value,
        f"{column}_alphabetic_folded": alphabetic,
        f"{column}_ideographic_folded": ideographic,
        f"{column}_phonetic_folded": phonetic,
    }


def _date(column: str, value: str) -> Row:
    return {column: value, f"{column}_folded": fold_date(value)}


def _time(column: str, value: str) -> Row:
    return {column: value, f"{column}_folded": fold_time(value)}
