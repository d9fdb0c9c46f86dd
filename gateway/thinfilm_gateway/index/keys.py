"""The attributes that queries match and return: U, R and O keys of PS3.4 C.6.1.1 and C.6.2.1."""

from dataclasses import dataclass
from typing import Any

from thinfilm_gateway.index.attributes import FURTHER_KEYS, MATCHING
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.matching import Matching
from thinfilm_gateway.index.models import Instance, Patient, Series, Study

ENTITIES: dict[Level, Any] = {
    Level.PATIENT: Patient,
    Level.STUDY: Study,
    Level.SERIES: Series,
    Level.IMAGE: Instance,
}


@dataclass(frozen=True)
class KeyAttribute:
    """An attribute of a level.

    column: of the table of its level; those that match it begin with the same name. None: it is in the JSON of its row.
    """

    level: Level
    column: str | None
    matching: Matching


KEY_ATTRIBUTES = {
    "PatientID": KeyAttribute(Level.PATIENT, "patient_id", Matching.TEXT),
    "IssuerOfPatientID": KeyAttribute(Level.PATIENT, "issuer_of_patient_id", Matching.TEXT),
    "PatientName": KeyAttribute(Level.PATIENT, "patient_name", Matching.NAME),
    "PatientBirthDate": KeyAttribute(Level.PATIENT, "patient_birth_date", Matching.DATE),
    "PatientSex": KeyAttribute(Level.PATIENT, "patient_sex", Matching.TEXT),
    "StudyInstanceUID": KeyAttribute(Level.STUDY, "study_instance_uid", Matching.UID),
    "StudyDate": KeyAttribute(Level.STUDY, "study_date", Matching.DATE),
    "StudyTime": KeyAttribute(Level.STUDY, "study_time", Matching.TIME),
    "AccessionNumber": KeyAttribute(Level.STUDY, "accession_number", Matching.TEXT),
    "StudyID": KeyAttribute(Level.STUDY, "study_id", Matching.TEXT),
    "StudyDescription": KeyAttribute(Level.STUDY, "study_description", Matching.FOLDED),
    "ReferringPhysicianName": KeyAttribute(Level.STUDY, "referring_physician_name", Matching.NAME),
    "SeriesInstanceUID": KeyAttribute(Level.SERIES, "series_instance_uid", Matching.UID),
    "Modality": KeyAttribute(Level.SERIES, "modality", Matching.TEXT),
    "SeriesNumber": KeyAttribute(Level.SERIES, "series_number", Matching.NUMBER),
    "SeriesDescription": KeyAttribute(Level.SERIES, "series_description", Matching.FOLDED),
    "BodyPartExamined": KeyAttribute(Level.SERIES, "body_part_examined", Matching.TEXT),
    "Laterality": KeyAttribute(Level.SERIES, "laterality", Matching.TEXT),
    "PerformedProcedureStepStartDate": KeyAttribute(Level.SERIES, "performed_procedure_step_start_date", Matching.DATE),
    "PerformedProcedureStepStartTime": KeyAttribute(Level.SERIES, "performed_procedure_step_start_time", Matching.TIME),
    "SOPInstanceUID": KeyAttribute(Level.IMAGE, "sop_instance_uid", Matching.UID),
    "SOPClassUID": KeyAttribute(Level.IMAGE, "sop_class_uid", Matching.UID),
    "InstanceNumber": KeyAttribute(Level.IMAGE, "instance_number", Matching.NUMBER),
    "Rows": KeyAttribute(Level.IMAGE, "rows", Matching.NUMBER),
    "Columns": KeyAttribute(Level.IMAGE, "columns", Matching.NUMBER),
    "NumberOfFrames": KeyAttribute(Level.IMAGE, "number_of_frames", Matching.NUMBER),
    "ContentDate": KeyAttribute(Level.IMAGE, "content_date", Matching.DATE),
    "ContentTime": KeyAttribute(Level.IMAGE, "content_time", Matching.TIME),
    "AvailableTransferSyntaxUID": KeyAttribute(Level.IMAGE, "transfer_syntax_uid", Matching.UID),
    **{
        keyword: KeyAttribute(level, None, MATCHING[keyword])
        for level, keywords in FURTHER_KEYS.items()
        for keyword in keywords
    },
}
