"""Orthanc, a PACS that is not ours, as the sender and as the destination of a C-MOVE."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import orthanc as orthanc_server
from support.datasets import IMPLICIT_LITTLE, ct_series, patient
from support.dcmtk import movescu, storescp, storescu
from support.objects import dataset_of, datasets_in, write_files
from support.orthanc import Orthanc
from support.sites import ORTHANC, STORESCP, Site
from thinfilm_gateway.client.files import DicomFile


@pytest.fixture
def orthanc(embedded: Site, tmp_path: Path) -> Iterator[Orthanc]:
    modalities = {"thinfilm": ("THINFILM", embedded.port), "reference": (STORESCP, embedded.destinations[STORESCP])}
    with orthanc_server.orthanc(tmp_path / "orthanc", embedded.destinations[ORTHANC], modalities) as running:
        yield running


def objects(folder: Path, name: str) -> list[DicomFile]:
    who = patient(study=name)
    implicit = ct_series(1, 32, IMPLICIT_LITTLE, who, f"{name}, implicit")
    return write_files(folder, [*ct_series(4, 40, who=who, series=name), *implicit])


def test_what_orthanc_sends_comes_back_byte_for_byte(embedded: Site, orthanc: Orthanc, tmp_path: Path):
    files = objects(tmp_path / "files", "orthanc sends")
    for file in files:
        orthanc.post("/instances", file.path.read_bytes())
    everything = {"Resources": orthanc.instances(), "Synchronous": True}
    (tmp_path / "reference").mkdir()
    with storescp(embedded.destinations[STORESCP], tmp_path / "reference"):
        orthanc.post("/modalities/reference/store", everything)
    assert orthanc.post("/modalities/thinfilm/store", everything)["FailedInstancesCount"] == 0
    embedded.await_archived()

    reference = datasets_in(tmp_path / "reference")
    assert len(reference) == 5
    (tmp_path / "moved").mkdir()
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={files[0].study_instance_uid}"]
    with storescp(embedded.destinations[STORESCP], tmp_path / "moved"):
        movescu(embedded.port, keys, STORESCP, "-S").check()
    assert datasets_in(tmp_path / "moved") == reference


def test_orthanc_receives_from_us_what_it_receives_from_the_sender_itself(
    embedded: Site, orthanc: Orthanc, tmp_path: Path
):
    files = objects(tmp_path / "files", "orthanc receives")
    paths = [file.path for file in files]
    storescu(orthanc.dicom_port, paths, called="ORTHANC").check()
    straight = what_orthanc_has(orthanc)
    assert len(straight) == len(files)
    for identifier in orthanc.instances():
        orthanc.delete(f"/instances/{identifier}")

    storescu(embedded.port, paths).check()
    embedded.await_archived()
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={files[0].study_instance_uid}"]
    movescu(embedded.port, keys, ORTHANC, "-S").check()
    assert what_orthanc_has(orthanc) == straight


def what_orthanc_has(orthanc: Orthanc) -> dict[str, bytes]:
    """Return the data sets in Orthanc by its own identifiers, which it makes of the UIDs."""
    return {identifier: dataset_of(orthanc.get(f"/instances/{identifier}/file")) for identifier in orthanc.instances()}
