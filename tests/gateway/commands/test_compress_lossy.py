import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate

from support.datasets import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    US_IMAGE,
    EncodedDataSet,
    ct_series,
    finish,
    image_attributes,
    instance,
    mr_series,
    phantom,
    structured_report,
)
from support.objects import write_files
from thinfilm_gateway.commands.compress import Compressed, compress, lossy_request, sources
from thinfilm_gateway.commands.errors import CommandError
from thinfilm_gateway.commands.expand import expand
from thinfilm_gateway.commands.inspect import inspect
from thinfilm_gateway.dicom import pixels
from thinfilm_gateway.policy.choice import NO_GAIN
from thinfilm_gateway.policy.lossy import LossyTreatment

CEILING = 5.0
NEAR = LossyTreatment("near_lossless")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT that may be lossy, a mammogram, a report."""
    root = tmp_path_factory.mktemp("study")
    for name, data_sets in (("ct", ct_series(3)), ("sr", [structured_report()])):
        (root / name).mkdir()
        write_files(root / name, data_sets)
    file = pydicom.dcmread(root / "ct" / "0000.dcm")
    file.Modality, file.SOPClassUID, file.SeriesInstanceUID = "MG", "1.2.840.10008.5.1.4.1.1.1.2", "2.25.77"
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = "2.25.78"
    file.save_as(root / "mammogram.dcm")
    return root


@pytest.fixture(scope="module")
def archive(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Compressed]:
    output = tmp_path_factory.mktemp("out") / "x.tfa"
    return output, compress(sources([folder]), output, ["jpegls"], lossy=NEAR)


def expanded(archive: Path, directory: Path) -> Path:
    assert expand(archive, directory).damages == ()
    return directory


def test_images_that_may_be_lossy_come_back_as_objects_derived_from_them(
    folder: Path, archive: tuple[Path, Compressed], tmp_path: Path
) -> None:
    back = expanded(archive[0], tmp_path / "back")
    (row,) = [row for row in archive[1].lossy if row.guard.verdict == "lossy"]
    for name in ("ct/0000.dcm", "ct/0001.dcm", "ct/0002.dcm"):
        was, found = pydicom.dcmread(folder / name), pydicom.dcmread(back / name)
        assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == was.SOPInstanceUID
        assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID != was.SOPInstanceUID
        assert found.LossyImageCompression == "01"
        assert float(found.LossyImageCompressionRatio) == pytest.approx(row.ratio_allocated, rel=1e-3)
        errors = abs(found.pixel_array.astype(int) - was.pixel_array)
        assert 0 < errors.max() <= row.max_error
        assert np.array_equal(found.pixel_array == -2000, was.pixel_array == -2000)


def test_all_others_come_back_byte_for_byte(folder: Path, archive: tuple[Path, Compressed], tmp_path: Path) -> None:
    back = expanded(archive[0], tmp_path / "back")
    for name in ("mammogram.dcm", "sr/0000.dcm"):
        assert (back / name).read_bytes() == (folder / name).read_bytes()


def test_the_json_tells_errors_ratios_and_what_the_guard_says(archive: tuple[Path, Compressed]) -> None:
    rows = {row["modality"]: row for row in json.loads(json.dumps(archive[1].to_json()))["series"]}
    ct = rows["CT"]
    assert ct["codec"] == "near_lossless"
    assert ct["guard"]["verdict"] == "lossy"
    assert "not above JPEG's" in ct["guard"]["reason"]
    assert 2 < ct["ratio_stored"] < ct["ratio_allocated"] <= CEILING
    assert ct["ratio_allocated"] == pytest.approx(ct["native_pixel_bytes"] / ct["coded_pixel_bytes"])
    assert 0 < ct["rmse"] <= ct["max_error"]
    assert ct["psnr_stored"] == pytest.approx(20 * np.log10(4095 / ct["rmse"]))
    assert ct["settings"] == ["step 5, no error above 2"]
    mg = rows["MG"]
    assert (mg["max_error"], mg["rmse"], mg["psnr_stored"], mg["settings"]) == (0, 0, None, [])
    assert mg["guard"] == {
        "verdict": "lossless", "reason": "Mammograms are kept lossless, as the MQSA demands.",
    }  # fmt: skip
    assert mg["ratio_allocated"] == pytest.approx(mg["native_pixel_bytes"] / mg["coded_pixel_bytes"])
    assert mg["ratio_stored"] == pytest.approx(mg["ratio_allocated"] * 12 / 16)
    assert rows["SR"]["guard"]["verdict"] == "lossless"
    assert (rows["SR"]["ratio_allocated"], rows["SR"]["ratio_stored"]) == (None, None)


def test_the_same_files_give_the_same_container(folder: Path, archive: tuple[Path, Compressed], tmp_path: Path) -> None:
    compress(sources([folder]), tmp_path / "again.tfa", ["jpegls"], lossy=NEAR)
    assert (tmp_path / "again.tfa").read_bytes() == archive[0].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.tfa"]


def test_inspect_shows_the_derived_objects(archive: tuple[Path, Compressed]) -> None:
    entries = {entry.name: entry for entry in inspect(archive[0]).entries}
    assert entries["ct/0001.dcm"].codec == "near_lossless"
    assert entries["ct/0001.dcm"].sop_instance_uid.startswith("2.25.")
    assert entries["mammogram.dcm"].codec == "jpegls"


def test_a_fresh_process_expands_the_container_alone(archive: tuple[Path, Compressed], tmp_path: Path) -> None:
    alone = shutil.copy(archive[0], tmp_path / "alone.tfa")
    command = [sys.executable, "-m", "thinfilm_gateway", "expand", str(alone), "-o", str(tmp_path / "back")]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
    here = expanded(archive[0], tmp_path / "here")
    for path in here.rglob("*.dcm"):
        assert (tmp_path / "back" / path.relative_to(here)).read_bytes() == path.read_bytes()


def coded(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """Return a code sequence of one item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def within(*keywords: str, value: list[Dataset]) -> list[Dataset]:
    """Return the value of a sequence within sequences."""
    for keyword in reversed(keywords):
        item = Dataset()
        setattr(item, keyword, value)
        value = [item]
    return value


def modality_lut(entries: int) -> list[Dataset]:
    """Return a Modality LUT Sequence; 2^15 entries take more bytes than attributes are held of."""
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [entries, 0, 16], "OD"
    lut.add_new("LUTData", "OW", np.arange(entries, dtype="<u2").tobytes())
    return [lut]


def changed(folder: Path, size: int = 64, **attributes: object) -> Compressed:
    """Compress a CT image after a change."""
    write_files(folder, ct_series(1, size))
    dataset = pydicom.dcmread(folder / "0000.dcm")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(folder / "0000.dcm")
    return compress(sources([folder / "0000.dcm"]), folder / "x.tfa", ["jpegls"], lossy=NEAR)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"LossyImageCompression": "01"}, "It was compressed lossily before."),
        ({"LossyImageCompressionMethod": "ISO_10918_1"}, "It was compressed lossily before."),
        ({"LossyImageCompressionRatio": "1"}, "It was compressed lossily before."),
        (
            {"DerivationCodeSequence": coded("113040", "DCM", "Lossy Compression")},
            "It was compressed lossily before.",
        ),
        (
            {
                "PerFrameFunctionalGroupsSequence": within(
                    "DerivationImageSequence", "DerivationCodeSequence", value=coded("113040", "DCM", "")
                )
            },
            "It was compressed lossily before.",
        ),
        ({"DerivationDescription": "LOSSY JPEG, quality 90"}, "It was compressed lossily before."),
        ({"ModalityLUTSequence": modality_lut(16)}, "A Modality LUT gives its samples their meaning"),
        ({"ModalityLUTSequence": modality_lut(1 << 15)}, "A Modality LUT gives its samples their meaning"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "Its Photometric Interpretation is not one"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Its SOP class and modality are not known"),
        ({"Modality": "MR"}, "Its SOP class and modality are not known"),
        ({"Modality": "PT"}, "The values of PET are measurements"),
        ({"Modality": "RTIMAGE"}, "What belongs to radiotherapy is kept lossless."),
        ({"BitsStored": 11, "HighBit": 10}, "The bits above Bits Stored are in use."),
        ({"BitsStored": 0}, "Its Bits Stored is missing, or not between 1 and Bits Allocated."),
        ({"BitsStored": None}, "Its Bits Stored is missing, or not between 1 and Bits Allocated."),
        ({"BitsStored": 17}, "Its Bits Stored is missing, or not between 1 and Bits Allocated."),
        ({"BitsStored": [12, 12]}, "Its Bits Stored is missing, or not between 1 and Bits Allocated."),
        ({"HighBit": 15}, "Its High Bit is not Bits Stored less one."),
        ({"HighBit": None}, "Its High Bit is not Bits Stored less one."),
        ({"PixelRepresentation": None}, "Its Pixel Representation does not say whether its samples have a sign."),
        ({"PixelRepresentation": 2}, "Its Pixel Representation does not say whether its samples have a sign."),
        ({"PhotometricInterpretation": "RGB"}, "Its Photometric Interpretation has another number of samples"),
        ({"Rows": 63}, "Its Pixel Data has another length than its rows and columns ask for."),
        ({"Columns": 62}, "Its Pixel Data has another length than its rows and columns ask for."),
        ({"NumberOfFrames": 2}, "It has not the frames that it declares."),
    ],
)
def test_what_must_not_be_lossy_stays_as_it_is(tmp_path: Path, attributes: dict[str, object], reason: str) -> None:
    made = changed(tmp_path, **attributes)
    assert made.lossy[0].guard.verdict == "lossless"
    assert made.lossy[0].guard.reason.startswith(reason)
    expand(tmp_path / "x.tfa", tmp_path / "back")
    assert (tmp_path / "back" / "0000.dcm").read_bytes() == (tmp_path / "0000.dcm").read_bytes()


CR_IMAGE, BREAST_CODE = "1.2.840.10008.5.1.4.1.1.1", ("76752008", "SCT", "Breast")
CHEST = {"Modality": "CR", "SOPClassUID": CR_IMAGE, "BodyPartExamined": "CHEST"}
MAMMOGRAM = "Mammograms are kept lossless, as the MQSA demands."


def test_a_radiograph_of_the_chest_may_be_lossy(tmp_path: Path) -> None:
    assert changed(tmp_path, **CHEST, ViewPosition="PA").lossy[0].guard.verdict == "lossy"


@pytest.mark.parametrize(
    "attributes",
    [
        {"BodyPartExamined": "BREAST"},
        {"AnatomicRegionSequence": coded(*BREAST_CODE)},
        {"AnatomicRegionSequence": coded("T-04000", "SRT", "")},
        {"AnatomicRegionSequence": coded("1", "99LOCAL", "Mamma links")},
        {
            "SharedFunctionalGroupsSequence": within(
                "FrameAnatomySequence", "AnatomicRegionSequence", value=coded(*BREAST_CODE)
            )
        },
        {
            "PerFrameFunctionalGroupsSequence": within(
                "FrameAnatomySequence", "AnatomicRegionSequence", value=coded(*BREAST_CODE)
            )
        },
        {"ViewPosition": "MLO"},
        {"ViewPosition": "CC"},
        {"ViewPosition": "R LM"},
        {"ViewPosition": "XCCL"},
        {"ViewCodeSequence": coded("399162004", "SCT", "")},
        {"ViewCodeSequence": coded("R-10226", "SRT", "")},
        {"PartialView": "NO"},
        {"BreastImplantPresent": "NO"},
        {"PositionerType": "MAMMOGRAPHIC"},
        {"SeriesDescription": "Mammo rechts"},
    ],
)
def test_a_radiograph_that_says_anywhere_that_it_is_of_the_breast_stays_lossless(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    made = changed(tmp_path, **(CHEST | attributes))
    assert (made.lossy[0].guard.verdict, made.lossy[0].guard.reason) == ("lossless", MAMMOGRAM)


@pytest.mark.parametrize("body_part", [None, "", "BRUST", "AXILLA"])
def test_a_radiograph_of_an_unknown_body_part_stays_lossless(tmp_path: Path, body_part: str | None) -> None:
    made = changed(tmp_path, **(CHEST | {"BodyPartExamined": body_part}))
    assert made.lossy[0].guard.verdict == "lossless"
    assert made.lossy[0].guard.reason.endswith("so it may be a mammogram.")


def test_what_only_tells_of_lossless_compression_may_be_lossy(tmp_path: Path) -> None:
    told = {"LossyImageCompression": "00", "DerivationDescription": "Lossless JPEG, selection value 1"}
    assert changed(tmp_path, **told).lossy[0].guard.verdict == "lossy"


def test_what_was_derived_here_is_not_derived_again(
    folder: Path, archive: tuple[Path, Compressed], tmp_path: Path
) -> None:
    back = expanded(archive[0], tmp_path / "back") / "ct"
    for path in back.iterdir():
        derived = pydicom.dcmread(path)
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            delattr(derived, keyword)  # as many a workstation does that writes an image anew
        derived.save_as(path)
    (row,) = compress(sources([back]), tmp_path / "again.tfa", ["jpegls"], lossy=NEAR).lossy
    assert (row.guard.verdict, row.guard.reason) == ("lossless", "It was compressed lossily before.")


def ultrasound(samples: np.ndarray, syntax: str, vr: str, value: bytes) -> EncodedDataSet:
    """Return an ultrasound image whose Pixel Data is of this VR."""
    return finish({**instance(US_IMAGE, "US"), **image_attributes(samples), "PixelData": (vr, value)}, syntax)


def lossy_errors(folder: Path, data_set: EncodedDataSet) -> tuple[str, int, int]:
    """Compress an image; return the verdict, the error that is told, and that which pydicom sees."""
    write_files(folder, [data_set])
    asked = LossyTreatment("near_lossless", max_error=2)
    (row,) = compress(sources([folder / "0000.dcm"]), folder / "x.tfa", ["jpegls"], lossy=asked).lossy
    back = expanded(folder / "x.tfa", folder / "back") / "0000.dcm"
    was, found = pydicom.dcmread(folder / "0000.dcm"), pydicom.dcmread(back)
    seen = int(abs(was.pixel_array.astype(int) - found.pixel_array).max())
    if row.guard.verdict == "lossless":
        assert back.read_bytes() == (folder / "0000.dcm").read_bytes()
    return row.guard.verdict, row.max_error, seen


TISSUE = np.clip(phantom(64, 64, noise=20.0) / 8 + 128, 0, 255).astype(np.uint8)


def test_pairs_of_8_bit_samples_that_big_endian_words_swap_stay_as_they_are(tmp_path: Path) -> None:
    words = TISSUE.view("<u2").astype(">u2").tobytes()
    assert lossy_errors(tmp_path, ultrasound(TISSUE, EXPLICIT_BIG, "OW", words)) == ("lossless", 0, 0)


def test_an_image_that_pydicom_reads_otherwise_than_we_do_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_is_order_plain", lambda outline, bits: True)  # our reader forgets the order
    words = TISSUE.view("<u2").astype(">u2").tobytes()
    write_files(tmp_path, [ultrasound(TISSUE, EXPLICIT_BIG, "OW", words)])
    asked = LossyTreatment("near_lossless", max_error=2)
    (row,) = compress(sources([tmp_path / "0000.dcm"]), tmp_path / "x.tfa", ["jpegls"], lossy=asked).lossy
    assert row.guard.verdict == "lossless"
    assert row.guard.reason.startswith("A viewer would see errors up to ")


@pytest.mark.parametrize(("syntax", "vr"), [(EXPLICIT_BIG, "OB"), (EXPLICIT_LITTLE, "OB"), (EXPLICIT_LITTLE, "OW")])
def test_8_bit_samples_in_their_own_order_may_be_lossy(tmp_path: Path, syntax: str, vr: str) -> None:
    verdict, told, seen = lossy_errors(tmp_path, ultrasound(TISSUE, syntax, vr, TISSUE.tobytes()))
    assert verdict == "lossy"
    assert 0 < told == seen <= 2


def test_words_of_16_bits_in_bytes_of_an_order_that_nobody_knows_stay_as_they_are(tmp_path: Path) -> None:
    samples = TISSUE.astype(np.uint16)
    data_set = ultrasound(samples, EXPLICIT_BIG, "OB", samples.astype(">u2").tobytes())
    assert lossy_errors(tmp_path, data_set) == ("lossless", 0, 0)


def test_lossless_jpeg_that_becomes_lossy_is_as_far_off_as_is_told(tmp_path: Path) -> None:
    path = tmp_path / "0000.dcm"
    write_files(tmp_path, [ultrasound(TISSUE, EXPLICIT_LITTLE, "OB", TISSUE.tobytes())])
    was = pydicom.dcmread(path)
    was.PixelData = encapsulate([imagecodecs.ljpeg_encode(TISSUE)])
    was["PixelData"].VR, was["PixelData"].is_undefined_length = "OB", True
    was.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    was.save_as(path)
    (row,) = compress(sources([path]), tmp_path / "x.tfa", ["jpegls"], lossy=NEAR).lossy
    assert row.guard.verdict == "lossy"
    found = pydicom.dcmread(expanded(tmp_path / "x.tfa", tmp_path / "back") / "0000.dcm").pixel_array
    assert row.max_error == int(abs(TISSUE.astype(int) - found).max()) > 0


def test_an_image_that_becomes_no_smaller_stays_lossless(tmp_path: Path) -> None:
    made = changed(tmp_path, size=8)
    assert (made.lossy[0].guard.verdict, made.lossy[0].guard.reason) == ("lossless", NO_GAIN)
    exact = compress(sources([tmp_path / "0000.dcm"]), tmp_path / "exact.tfa", ["jpegls"])
    assert made.report.archive_bytes == exact.report.archive_bytes


def test_an_image_whose_padding_would_change_stays_lossless(tmp_path: Path) -> None:
    made = changed(tmp_path, PixelPaddingValue=-999)  # a value that air has too
    assert made.lossy[0].guard.reason.endswith("become padding, or the other way round.") or made.lossy[
        0
    ].guard.reason.endswith("Padding would not keep its value.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("jpegls", None, 2, None), "--max-error is for a lossy codec, given by --codec: "),
        ((None, None, None, 4.0), "--ratio is for a lossy codec, given by --codec: "),
        ((None, "drg-2009", None, None), "--profile is for a lossy codec, given by --codec: "),
        (("nope", None, None, None), "No codec is called 'nope'; choose among .*jpegls, .*near_lossless, .*vae.$"),
        (("near_lossless", None, None, 10.5), "A ratio of 10.5 is above 10, the highest ceiling of esr-strict.$"),
        (("near_lossless", "mild", None, None), "No profile is called 'mild'; choose among "),
        (("near_lossless", None, 0, None), "The largest error that is allowed is at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_sentence(
    arguments: tuple[str | None, str | None, int | None, float | None], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        lossy_request(*arguments)


def test_without_a_lossy_codec_nothing_lossy_is_asked_for() -> None:
    assert lossy_request("jpegls", None, None, None) is None
    assert lossy_request("near_lossless", None, 2, 3.5) == LossyTreatment("near_lossless", "esr-strict", 2, 3.5)


def test_a_bound_and_a_ratio_are_kept(tmp_path: Path) -> None:
    write_files(tmp_path, mr_series(2))
    files = sources([tmp_path])
    bound = compress(files, tmp_path / "bound.tfa", ["jpegls"], lossy=LossyTreatment("near_lossless", max_error=1))
    assert bound.lossy[0].max_error == 1
    asked = compress(files, tmp_path / "ratio.tfa", ["jpegls"], lossy=LossyTreatment("near_lossless", ratio=4.0))
    assert asked.lossy[0].ratio_allocated is not None
    assert 4.0 <= asked.lossy[0].ratio_allocated <= CEILING
    assert "asked for" not in asked.lossy[0].guard.reason
    short = compress(files, tmp_path / "short.tfa", ["jpegls"], lossy=LossyTreatment("near_lossless", ratio=8.0))
    assert "The ratio of 8 that was asked for is not reached." in short.lossy[0].guard.reason
