"""Everything once through a whole site: in by C-STORE, into the archive, found, and back by C-GET and C-MOVE."""

import re
from pathlib import Path

from support.commitment import Modality, references
from support.datasets import ct_series, one_of_each, patient
from support.dcmtk import dcmsend, echoscu, findscu, getscu, movescu, storescp, storescu
from support.objects import datasets_in, write_files
from support.sites import OUR_STORE, STORESCP, Site
from thinfilm_gateway.client import network
from thinfilm_gateway.demo.proof import Proof


def test_every_kind_of_object_comes_back_from_the_archive_byte_for_byte(site: Site, tmp_path: Path):
    proof = Proof()
    files = write_files(tmp_path, [*one_of_each().values(), *ct_series(12, 64, series="kinds")])
    proof.note_sent(network.store_parallel(site.gateway.node, files, 3))
    assert not proof.refused
    rows = site.await_archived()
    assert sum(row.archived for row in rows) >= len(files)

    retrieve(site, proof)
    assert proof.faults == []
    assert all(proof.is_exact(file) for file in files)


def test_what_dcmtk_sends_is_what_dcmtk_gets_back(site: Site, tmp_path: Path):
    files = write_files(tmp_path / "files", ct_series(4, 48, who=patient(study="dcmtk"), series="dcmtk"))
    paths = [file.path for file in files]
    echoscu(site.port).check()
    # DCMTK writes data sets anew when it sends them; a receiver of its own shows what it sends.
    with storescp(site.destinations[STORESCP], mkdir(tmp_path / "reference")):
        storescu(site.destinations[STORESCP], paths).check()
    reference = datasets_in(tmp_path / "reference")
    assert len(reference) == 4
    storescu(site.port, paths[:2]).check()
    dcmsend(site.port, paths[2:]).check()
    site.await_archived()

    study = files[0].study_instance_uid
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"]
    getscu(site.port, keys, mkdir(tmp_path / "got"), "-S").check()
    assert datasets_in(tmp_path / "got") == reference

    with storescp(site.destinations[STORESCP], mkdir(tmp_path / "moved")):
        movescu(site.port, keys, STORESCP, "-S").check()
    assert datasets_in(tmp_path / "moved") == reference

    answer = findscu(site.port, [*keys, "NumberOfStudyRelatedInstances"], "-S").check()
    assert re.search(r"\(0020,1208\) IS \[4 ?\]", answer.output)


def test_objects_that_arrive_late_in_a_series_come_back_too(site: Site, tmp_path: Path):
    proof = Proof()
    files = write_files(tmp_path, ct_series(6, 32, series="late"))
    for part in (files[:4], files[4:]):
        proof.note_sent(network.store(site.gateway.node, part))
        site.await_archived()
    retrieve(site, proof)
    assert proof.faults == []
    assert all(proof.is_exact(file) for file in files)


def test_what_lies_in_the_archive_is_committed_and_told_to_a_peer_that_has_left(site: Site, tmp_path: Path):
    objects = ct_series(6, 32, series="committed")
    network.store(site.gateway.node, write_files(tmp_path, objects))
    site.await_archived()
    modality = Modality()
    with modality.listening(site.destinations[OUR_STORE]):
        assert modality.ask(site.port, "2.25.20240229", references(objects), ae_title=OUR_STORE) == 0
        (report,) = modality.await_reports()
    assert report.event_type == 1
    assert report.committed == [one.sop_instance_uid for one in objects]


def retrieve(site: Site, proof: Proof) -> None:
    """Get and move every series of what was stored."""

    def got(*received) -> None:
        proof.note_received("C-GET", *received)

    def moved(*received) -> None:
        proof.note_received("C-MOVE", *received)

    with network.destination(OUR_STORE, moved, site.destinations[OUR_STORE]):
        for files in proof.series():
            network.get(site.gateway.node, files, got)
            network.move(site.gateway.node, files, OUR_STORE)


def mkdir(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
