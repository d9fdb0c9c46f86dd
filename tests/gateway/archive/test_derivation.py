import io
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.tag import Tag

from support.datasets import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    EncodedDataSet,
    ct_series,
    mr_series,
    patient,
    us_colour,
)
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import SampleArray
from thinfilm_gateway.archive.derivation import METHODS, CannotDerive, LossyStep, derive
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.dataset import outline
from thinfilm_gateway.dicom.pixels import native_pixels

STEP = LossyStep("near_lossless", "step 7", 4.81234)


def samples_of(data_set: EncodedDataSet) -> SampleArray:
    dataset, transfer_syntax_uid, _, _ = data_set
    pixels = native_pixels(outline(dataset, transfer_syntax_uid), dataset)
    assert pixels is not None
    return pixels.block.samples


def read(dataset: bytes) -> Dataset:
    """Read a derived data set by pydicom, values and all."""
    header = part10.build("1.2.840.10008.5.1.4.1.1.2", "2.25.1", EXPLICIT_LITTLE)
    found = pydicom.dcmread(io.BytesIO(header + dataset))
    for element in found.iterall():
        assert element.value is not None or element.is_empty
    return found


def derived(data_set: EncodedDataSet, samples: SampleArray, step: LossyStep = STEP) -> Dataset:
    return read(derive(data_set[0], data_set[1], samples, step).dataset)


def original(data_set: EncodedDataSet) -> Dataset:
    header = part10.build(data_set[2], data_set[3], data_set[1])
    return pydicom.dcmread(io.BytesIO(header + data_set[0]))


def test_when_the_original_was_made_and_by_whom_is_not_said_of_the_derived_object() -> None:
    made = {"InstanceCreationDate": "20200101", "InstanceCreationTime": "120000", "InstanceCreatorUID": "2.25.9"}
    data_set = ct_series(1, who=patient() | made)[0]
    assert {0x00080012, 0x00080013, 0x00080014} <= original(data_set).keys()
    assert not {0x00080012, 0x00080013, 0x00080014} & derived(data_set, samples_of(data_set)).keys()


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_a_derived_image_says_what_it_is_and_of_what(syntax: str) -> None:
    data_set = ct_series(1, transfer_syntax_uid=syntax)[0]
    samples = samples_of(data_set) + np.int16(1)
    found, was = derived(data_set, samples), original(data_set)
    assert found.SOPClassUID == was.SOPClassUID
    assert found.SOPInstanceUID != was.SOPInstanceUID
    assert found.SeriesInstanceUID == was.SeriesInstanceUID
    assert found.ImageType == ["DERIVED", "PRIMARY", "AXIAL"]
    assert found.LossyImageCompression == "01"
    assert found.LossyImageCompressionRatio == 4.812
    assert found.LossyImageCompressionMethod == "THINFILM_NEAR"
    assert found.DerivationDescription == "Lossy compression by near_lossless, step 7, ratio 4.812:1, all frames."
    (code,) = found.DerivationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113040", "DCM")
    (source,) = found.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == was.SOPInstanceUID
    assert source.ReferencedSOPClassUID == was.SOPClassUID
    (purpose,) = source.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("121320", "DCM")
    assert purpose.CodeMeaning == "Uncompressed predecessor"
    assert np.array_equal(found.pixel_array, samples[0])


def test_all_other_attributes_stay_as_they_were() -> None:
    data_set = mr_series(1)[0]
    found, was = derived(data_set, samples_of(data_set)), original(data_set)
    changed = {
        "SOPInstanceUID", "ImageType", "LossyImageCompression", "LossyImageCompressionRatio",
        "LossyImageCompressionMethod", "DerivationDescription", "DerivationCodeSequence", "SourceImageSequence",
    }  # fmt: skip
    assert {tag for tag in found.keys() | was.keys() if found.get(tag) != was.get(tag)} == set(map(Tag, changed))


def test_the_uid_is_a_uuid_of_the_original_the_way_and_the_result() -> None:
    data_set, other = ct_series(2)
    samples = samples_of(data_set)
    uid = derive(data_set[0], data_set[1], samples, STEP).sop_instance_uid
    assert uid == derive(data_set[0], data_set[1], samples, STEP).sop_instance_uid
    others = {
        derive(other[0], other[1], samples, STEP).sop_instance_uid,
        derive(data_set[0], data_set[1], samples + np.int16(1), STEP).sop_instance_uid,
        derive(data_set[0], data_set[1], samples, LossyStep("vae", "step 7", 4.8)).sop_instance_uid,
        derive(data_set[0], data_set[1], samples, LossyStep("near_lossless", "step 9", 4.8)).sop_instance_uid,
    }
    assert len(others) == 4
    assert uid not in others
    assert uid.startswith("2.25.")
    number = int(uid.removeprefix("2.25."))
    assert len(uid) <= 64
    assert number >> 76 & 0xF == 8  # the version of a UUID whose bits are our own (RFC 9562)


def test_what_is_said_of_earlier_steps_is_extended() -> None:
    data_set = ct_series(1)[0]
    was = original(data_set)
    was.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    was.DerivationDescription = "Reformatted"
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "113072", "DCM", "Multiplanar reformatting"
    was.DerivationCodeSequence = [item]
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "2.25.7"
    was.SourceImageSequence = [source, source]
    found = derived(encoded(was), samples_of(data_set))
    assert found.ImageType == ["DERIVED", "SECONDARY", "MPR"]
    assert found.DerivationDescription.startswith("Reformatted Lossy compression by near_lossless")
    assert [code.CodeValue for code in found.DerivationCodeSequence] == ["113072", "113040"]
    uids = [each.ReferencedSOPInstanceUID for each in found.SourceImageSequence]
    assert uids == ["2.25.7", "2.25.7", was.SOPInstanceUID]


def encoded(dataset: Dataset) -> EncodedDataSet:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    file = buffer.getvalue()
    header = part10.locate(file)
    content = file[header.dataset_offset :] if header else file
    return EncodedDataSet(content, EXPLICIT_LITTLE, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))


def test_attributes_that_depend_on_the_samples_follow_them() -> None:
    data_set = ct_series(1)[0]
    was = original(data_set)
    was.add_new("SmallestImagePixelValue", "SS", -2000)
    was.add_new("LargestImagePixelValue", "SS", 300)
    was.add_new("SmallestPixelValueInSeries", "SS", -2000)
    icon = Dataset()
    icon.Rows = icon.Columns = 1
    was.IconImageSequence = [icon]
    samples = samples_of(data_set).clip(-1500, 50)
    found = derived(encoded(was), samples)
    assert (found.SmallestImagePixelValue, found.LargestImagePixelValue) == (-1500, 50)
    assert "SmallestPixelValueInSeries" not in found
    assert "IconImageSequence" not in found
    assert "SmallestImagePixelValue" not in derived(data_set, samples)


def test_the_functional_groups_of_an_enhanced_object_say_it_too() -> None:
    was = original(mr_series(1)[0])
    was.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    frame_type, shared, frame = Dataset(), Dataset(), Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    frame.MRImageFrameTypeSequence = [frame_type]
    was.SharedFunctionalGroupsSequence = [shared]
    was.PerFrameFunctionalGroupsSequence = [frame]
    found = derived(encoded(was), samples_of(mr_series(1)[0]))
    (group,) = found.PerFrameFunctionalGroupsSequence
    assert group.MRImageFrameTypeSequence[0].FrameType == ["DERIVED", "PRIMARY", "M", "NONE"]
    (derivation,) = found.SharedFunctionalGroupsSequence[0].DerivationImageSequence
    assert derivation.SourceImageSequence[0].ReferencedSOPInstanceUID == was.SOPInstanceUID
    assert derivation.DerivationCodeSequence[0].CodeValue == "113040"


def test_colour_by_plane_becomes_colour_by_pixel() -> None:
    data_set = us_colour(planar=True)
    samples = samples_of(data_set)
    found = derived(data_set, samples)
    assert original(data_set).PlanarConfiguration == 1
    assert found.PlanarConfiguration == 0
    assert np.array_equal(found.pixel_array, samples[0])


def test_every_lossy_codec_has_a_term_that_the_standard_allows() -> None:
    for codec_id in registry.lossy_names():
        assert len(METHODS[codec_id]) <= 16
        assert METHODS[codec_id].replace("_", "").isalnum()
        assert METHODS[codec_id].isupper()
    assert len(set(METHODS.values())) == len(METHODS)


def test_bytes_that_are_no_data_set_are_refused() -> None:
    with pytest.raises(CannotDerive):
        derive(b"\x08\x00\x18", EXPLICIT_LITTLE, np.zeros((1, 2, 2), np.int16), STEP)


def test_dcmtk_reads_it(tmp_path: Path) -> None:
    data_set = ct_series(1)[0]
    made = derive(data_set[0], data_set[1], samples_of(data_set), STEP)
    file = tmp_path / "derived.dcm"
    file.write_bytes(part10.build(made.sop_class_uid, made.sop_instance_uid, EXPLICIT_LITTLE) + made.dataset)
    dump = subprocess.run(["dcmdump", "--print-all", file], capture_output=True, text=True, check=True)
    assert dump.stderr == ""
    assert "(0028,2110) CS [01]" in dump.stdout
    assert "(0028,2114) CS [THINFILM_NEAR]" in dump.stdout
    assert f"[{made.sop_instance_uid}]" in dump.stdout
