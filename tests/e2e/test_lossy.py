"""An image on its way through a gateway with a lossy rule: DCMTK in, DCMTK out, as promise P4 has it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest

from support.datasets import ct_series, patient
from support.dcmtk import findscu, getscu, movescu, storescp, storescu
from support.gateway import running_gateway
from support.objects import write_files
from support.servers import free_port
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.quality.guard import judge
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.client.gateway import RunningGateway
from thinfilm_gateway.config import Peer, Settings
from thinfilm_gateway.index.decisions import Decision, decisions
from thinfilm_gateway.index.models import Instance
from thinfilm_gateway.index.states import InstanceState
from thinfilm_gateway.policy.rules import LossyRule
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.lossy_rules import apply_lossy_rules

CEILING = 5
BITS = 16 / CEILING
FLAT = 100
WAIT_SECONDS = 240.0  # of a machine that has much else to do


@dataclass(frozen=True)
class Kept:
    """A gateway that keeps images lossily without their originals; what was sent, by SOP Instance UID."""

    gateway: RunningGateway
    context: Context
    destination: int
    sent: dict[str, pydicom.Dataset]

    @property
    def decisions(self) -> list[Decision]:
        with self.context.database.reading() as session:
            return decisions(session)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("lossy")
    destination = free_port()
    settings = {
        "lossy": (LossyRule(modality="CT", delay_days=0, keep_original_days=0),),
        "peers": (Peer(ae_title="STORESCP", host="127.0.0.1", port=destination), Peer(ae_title="STORESCU")),
        "unknown_peers": "all",
        "series_quiet_seconds": 0.0,
    }
    files = write_files(folder / "files", ct_series(3, 64, who=patient(study="lossy")))
    flat = pydicom.dcmread(files[0].path)  # no setting is below the ceiling
    flat.SeriesInstanceUID, flat.SOPInstanceUID = "2.25.41", "2.25.42"
    flat.file_meta.MediaStorageSOPInstanceUID = "2.25.42"
    flat.PixelData = np.full((64, 64), FLAT, "<i2").tobytes()
    flat.save_as(folder / "files" / "flat.dcm")
    paths = [*(file.path for file in files), folder / "files" / "flat.dcm"]
    with running_gateway(folder, **settings) as gateway:
        storescu(gateway.node.port, paths).check()
        context = Context.open(Settings(data_dir=gateway.settings.data_dir, lossy=settings["lossy"]))
        one = Kept(
            gateway,
            context,
            destination,
            {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path) for path in paths},
        )
        wait_until(lambda: _states(context) == [InstanceState.ARCHIVED] * 4)
        apply_lossy_rules(context)
        wait_until(lambda: len(one.decisions) == 4)
        apply_lossy_rules(context)
        wait_until(lambda: sum(row.retired_at is not None for row in one.decisions) == 3)
        yield one
        context.database.dispose()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "The gateway did not do its work in time."
        time.sleep(0.1)


def _states(context: Context) -> list[InstanceState]:
    with context.database.reading() as session:
        return [row.state for row in session.query(Instance)]


def test_derived_objects_come_by_c_get_and_c_move_with_the_right_attributes(kept: Kept, tmp_path: Path) -> None:
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={next(iter(kept.sent.values())).StudyInstanceUID}"]
    (tmp_path / "got").mkdir()
    (tmp_path / "moved").mkdir()
    getscu(kept.gateway.node.port, keys, tmp_path / "got", "-S").check()
    with storescp(kept.destination, tmp_path / "moved"):
        movescu(kept.gateway.node.port, keys, "STORESCP", "-S").check()
    got, moved = ({path.name: path for path in (tmp_path / name).iterdir()} for name in ("got", "moved"))
    assert len(got) == len(moved) == 4
    of_decision = {row.original_sop_instance_uid: row for row in kept.decisions}
    lossy = 0
    for path in [*got.values(), *moved.values()]:
        found = pydicom.dcmread(path)
        if found.SOPInstanceUID in kept.sent:
            assert found.SOPInstanceUID == "2.25.42"
            assert found == kept.sent["2.25.42"]
            continue
        lossy += 1
        source = found.SourceImageSequence[0].ReferencedSOPInstanceUID
        row, was = of_decision[source], kept.sent[source]
        assert found.SOPInstanceUID == row.derived_sop_instance_uid
        assert found.ImageType[0] == "DERIVED"
        assert found.LossyImageCompression == "01"
        assert found.LossyImageCompressionMethod == "THINFILM_NEAR"
        assert float(found.LossyImageCompressionRatio) <= CEILING
        assert found.DerivationCodeSequence[0].CodeValue == "113040"
        verdict = judge(_block(was), _block(found).samples, BITS, row.max_error)
        assert verdict.kept, verdict.reason
        dump = subprocess.run(["dcmdump", path], capture_output=True, text=True, check=True)
        assert dump.stderr == ""
        assert "(0028,2110) CS [01]" in dump.stdout
    assert lossy == 6


def _block(dataset: pydicom.Dataset) -> PixelBlock:
    return PixelBlock(dataset.pixel_array[None], dataset.BitsStored)


def test_an_image_that_no_setting_may_keep_stays_lossless_and_status_says_why(kept: Kept) -> None:
    (row,) = [row for row in kept.decisions if row.original_sop_instance_uid == "2.25.42"]
    assert row.derived_sop_instance_uid is None
    command = [
        sys.executable,
        "-m",
        "thinfilm_gateway",
        "status",
        "--lossy",
        "--data-dir",
        str(kept.gateway.settings.data_dir),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "2.25.42 stays lossless: No setting of near_lossless may be taken." in " ".join(shown.split())


def test_the_container_alone_is_enough_for_a_fresh_process(kept: Kept, tmp_path: Path) -> None:
    archive = next(path for path in kept.gateway.settings.data_dir.rglob("*.tfa") if _codecs(path) == {"near_lossless"})
    alone = shutil.copy(archive, tmp_path / "alone.tfa")
    command = [sys.executable, "-m", "thinfilm_gateway", "expand", str(alone), "-o", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
    uids = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "out").iterdir()}
    assert uids == {row.derived_sop_instance_uid for row in kept.decisions if row.derived_sop_instance_uid}
    native = sum(dataset.Rows * dataset.Columns * 2 for uid, dataset in kept.sent.items() if uid != "2.25.42")
    with FileReader(archive) as reader:
        stacks = open_container(reader).manifest.stacks
    coded = sum(group.section.length for stack in stacks for group in stack.groups)
    coded += sum(codec.parameters.length for stack in stacks for codec in stack.codecs if codec.parameters)
    assert native / coded <= CEILING


def _codecs(path: Path) -> set[str]:
    with FileReader(path) as reader:
        return {codec.codec_id for stack in open_container(reader).manifest.stacks for codec in stack.codecs}


def test_the_uid_of_an_original_that_is_gone_leads_to_the_derived_object(kept: Kept, tmp_path: Path) -> None:
    row = next(row for row in kept.decisions if row.derived_sop_instance_uid)
    was = kept.sent[row.original_sop_instance_uid]
    keys = [
        "QueryRetrieveLevel=IMAGE",
        f"StudyInstanceUID={was.StudyInstanceUID}",
        f"SeriesInstanceUID={was.SeriesInstanceUID}",
        f"SOPInstanceUID={was.SOPInstanceUID}",
    ]
    answer = findscu(kept.gateway.node.port, [*keys, "AlternateRepresentationSequence"], "-S").check().output
    assert re.search(rf"\(0008,1155\) UI \[{re.escape(str(row.derived_sop_instance_uid))}", answer)
    assert "[121325]" in answer
    assert re.search(r"\(0008,0056\) CS \[UNAVAILABLE", answer)
    getscu(kept.gateway.node.port, keys, tmp_path, "-S").check()
    (path,) = tmp_path.iterdir()
    assert pydicom.dcmread(path).SOPInstanceUID == row.derived_sop_instance_uid
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={was.StudyInstanceUID}", "NumberOfStudyRelatedInstances"]
    assert re.search(r"\(0020,1208\) IS \[4 ?\]", findscu(kept.gateway.node.port, keys, "-S").check().output)
