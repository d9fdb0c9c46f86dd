"""Training: what it reads, that a stopped run ends as if it had not been, and that what it writes codes exactly."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid

from thinfilm_codecs.lossless.neural import compiled, fitting, reference, shape
from thinfilm_codecs.lossless.neural.compiled import Group, Inputs
from thinfilm_codecs.lossless.neural.model import Linear, from_arrays, shipped
from thinfilm_codecs.lossless.neural.planes import Geometry, padded, unpadded
from thinfilm_codecs.training import gathering, neural, prior, runs, stacks, validation
from thinfilm_codecs.training.network import TrainedNetwork
from thinfilm_codecs.training.resuming import OtherRun
from thinfilm_codecs.training.runs import Plan
from thinfilm_codecs.training.stacks import NoTrainingData, Series

SHORT = ["--steps", "50", "--batch", "256", "--most", "4000"]


def volume(frames: int = 6, side: int = 48, seed: int = 0) -> np.ndarray:
    """A smooth volume with noise that hangs together from slice to slice."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices((frames, side, side))
    noise = random.normal(0, 4, (frames, side, side)) + 6 * np.sin(z + random.normal(0, 2, (1, side, side)))
    return (500 + 200 * np.sin(x / 9 + seed) + 150 * np.cos(y / 7 + z / 5) + noise).astype(np.int16)


def write_image(
    file: Path, samples: np.ndarray, number: int, manufacturer: str = "Alpha", syntax: UID = ExplicitVRLittleEndian
) -> None:
    """Write one image (rows, columns), or (rows, columns, 3) in colour."""
    colour = samples.ndim == 3
    data_set = pydicom.Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID = CTImageStorage
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID = generate_uid()
    data_set.Modality, data_set.Manufacturer, data_set.InstanceNumber = "CT", manufacturer, number
    data_set.Rows, data_set.Columns = samples.shape[:2]
    data_set.SamplesPerPixel = 3 if colour else 1
    data_set.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data_set.PlanarConfiguration = 0
    data_set.BitsAllocated = 8 * samples.itemsize
    data_set.BitsStored = 8 * samples.itemsize if colour else 12
    data_set.HighBit = data_set.BitsStored - 1
    data_set.PixelRepresentation = int(samples.dtype.kind == "i")
    if syntax == JPEGLosslessSV1:
        encoded = imagecodecs.ljpeg_encode(samples.view(np.uint16) & 0xFFF, bitspersample=12)
        data_set.PixelData = encapsulate([encoded])
        data_set["PixelData"].is_undefined_length = True
    else:
        data_set.PixelData = samples.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    data_set.save_as(file, enforce_file_format=True)


def write_series(folder: Path, samples: np.ndarray, manufacturer: str = "Alpha") -> Path:
    """Write a series, its files named against the order of its images."""
    for number, frame in enumerate(samples):
        write_image(folder / f"{len(samples) - number:03}.dcm", frame, number + 1, manufacturer)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are trained by one thread; more would wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of DICOM from two makers: a volume of each, and a single image."""
    root = tmp_path_factory.mktemp("data")
    write_series(root / "alpha" / "volume", volume())
    write_series(root / "beta" / "volume", volume(4, 40, seed=1), "Beta Medical")
    write_series(root / "beta" / "image", volume(1, 64, seed=2), "Beta Medical")
    return root


@pytest.fixture(scope="module")
def series(data: Path) -> list[Series]:
    return stacks.read_all([data], [])


@pytest.fixture(scope="module")
def gathered(series: list[Series]) -> tuple[Linear, Inputs]:
    random = np.random.default_rng(0)
    linear = prior.pooled(series, random)
    return linear, gathering.joined(gathering.gather(series, linear, random, 3000))


def only_model(folder: Path) -> Path:
    (file,) = folder.glob("*.npz")
    return file


def test_a_series_is_read_in_the_order_of_its_instance_numbers(series: list[Series]) -> None:
    found = {(each.manufacturer, each.samples.shape): each.samples for each in series}
    np.testing.assert_array_equal(found["Alpha", (6, 48, 48)], volume())
    np.testing.assert_array_equal(found["Beta Medical", (1, 64, 64)], volume(1, 64, seed=2))


def test_lossless_jpeg_is_read_with_its_signs(tmp_path: Path) -> None:
    samples = volume(1, 32)[0] - 500
    write_image(tmp_path / "image.dcm", samples, 1, syntax=JPEGLosslessSV1)
    (read,) = stacks.read_all([tmp_path], [])
    np.testing.assert_array_equal(read.samples[0], samples)


def test_colour_other_files_and_folders_named_are_left_out(tmp_path: Path, data: Path) -> None:
    write_image(tmp_path / "colour" / "image.dcm", np.zeros((16, 16, 3), np.uint8), 1)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").write_text("no image")
    kept = stacks.read_all([data, tmp_path], ["beta"])
    assert [each.manufacturer for each in kept] == ["Alpha"]


def test_a_source_is_known_by_its_manufacturer_or_by_its_folder() -> None:
    blank = np.zeros((1, 8, 8), np.uint8)
    assert "GE" in Series("chest", blank, "GE MEDICAL SYSTEMS", "CT").words
    assert "GE" in Series("ge_chest", blank, "", "CT").words
    assert "GE" not in Series("image", blank, "", "CT").words


def test_the_prior_foretells_what_lies_between_neighbours(series: list[Series]) -> None:
    values = (series[0].samples - series[0].samples.min()).astype(np.uint16)
    groups = fitting.grouped([values], 1, 2, int(values.max()))
    linear = prior.pooled(series, np.random.default_rng(0))
    blank = Linear(linear.activity_thresholds, linear.consistency_thresholds, np.zeros_like(linear.coefficients))
    errors = []
    for stage in (linear, blank):
        compiled.predict(groups[0], stage)
        errors.append(np.abs(groups[0].errors.astype(int)).mean())
    assert errors[0] < 0.6 * errors[1]


class Interrupted(TrainedNetwork):
    """A network in a run that is stopped from outside after some steps."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__(width)
        self.left = steps

    def hold(self) -> None:
        super().hold()
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_stopped_run_that_goes_on_ends_with_the_same_model(gathered: tuple[Linear, Inputs], tmp_path: Path) -> None:
    linear, pixels = gathered
    plan, kept = Plan(96, 50, batch=256, seed=3), tmp_path / "run.ckpt"
    whole = runs.train(pixels, plan)
    torch.manual_seed(plan.seed)
    with pytest.raises(KeyboardInterrupt):
        runs.train(pixels, plan, checkpoint=kept, every=20, start=Interrupted(96, steps=37))
    assert torch.load(kept)["step"] == 20
    resumed = runs.train(pixels, plan, checkpoint=kept, every=20)
    assert from_arrays(resumed.export(linear)).identity == from_arrays(whole.export(linear)).identity


def test_training_lowers_the_bits(gathered: tuple[Linear, Inputs]) -> None:
    _, pixels = gathered
    fields = [torch.from_numpy(getattr(pixels, name)) for name in ("inputs", "means", "scales", "targets")]
    first, last = (runs.train(pixels, Plan(96, steps, rate=2e-2, batch=512)) for steps in (1, 80))
    with torch.no_grad():
        assert last.bits(*fields).mean() < 0.98 * first.bits(*fields).mean()


def test_a_checkpoint_of_another_run_is_refused(gathered: tuple[Linear, Inputs], tmp_path: Path) -> None:
    _, pixels = gathered
    runs.train(pixels, Plan(96, 2, batch=64), checkpoint=tmp_path / "run.ckpt")
    with pytest.raises(OtherRun, match=r"run\.ckpt is of other data or another plan"):
        runs.train(pixels, Plan(96, 3, batch=64), checkpoint=tmp_path / "run.ckpt")


@pytest.mark.parametrize("width", shape.WIDTHS)
def test_one_command_makes_a_model_that_codes_exactly(data: Path, tmp_path: Path, width: int) -> None:
    neural.main([str(data), "--models", str(tmp_path), "--width", str(width), *SHORT])
    file = only_model(tmp_path)
    with np.load(file, allow_pickle=False) as arrays:
        model = from_arrays(dict(arrays))
    assert model.identity.hex() == file.stem
    assert model.network.width == width
    values = (volume(3, 14, seed=9) - volume(3, 14, seed=9).min()).astype(np.uint16)
    geometry = Geometry(*values.shape, 1, 2, int(values.max()))
    group = Group(geometry, padded(values, geometry), geometry.empty(0))
    stream = compiled.encode(group, model.linear, model.network, model)
    assert len(stream) < 0.8 * values.nbytes
    for back_end in (compiled, reference):
        planes = back_end.decode(stream, geometry, model.linear, model.network, model)
        assert planes is not None
        np.testing.assert_array_equal(unpadded(planes, geometry), values)


def test_the_same_command_gives_the_same_model_and_another_seed_another(data: Path, tmp_path: Path) -> None:
    for name, seed in (("first", "1"), ("second", "1"), ("third", "2")):
        neural.main([str(data), "--models", str(tmp_path / name), "--seed", seed, *SHORT])
    first, second, third = (only_model(tmp_path / name).name for name in ("first", "second", "third"))
    assert first == second != third


def test_floats_in_training_count_as_the_integers_that_are_written(gathered: tuple[Linear, Inputs]) -> None:
    linear, pixels = gathered
    network = runs.train(pixels, Plan(96, 30, batch=256))
    fields = [torch.from_numpy(getattr(pixels, name)) for name in ("inputs", "means", "scales", "targets")]
    with torch.no_grad():
        trained = network.bits(*fields).numpy()
    model = from_arrays(network.export(linear))
    written, _ = compiled.objective(model.network, model, pixels, gradient=False)
    assert abs(trained.mean() - written.mean()) < 1e-3 * trained.mean()


def test_a_shipped_model_survives_being_trained_on_for_no_step() -> None:
    model = shipped()
    arrays = TrainedNetwork.of(model).export(model.linear)
    again = from_arrays(arrays)
    for one, other in zip(
        model.network.weights + model.network.biases, again.network.weights + again.network.biases, strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("command", [neural.main, validation.main])
def test_folders_that_are_missing_or_hold_no_images_are_refused_in_a_sentence(tmp_path: Path, command: object) -> None:
    assert callable(command)
    (tmp_path / "empty").mkdir()
    for folder, sentence in (("missing", "is no folder"), ("empty", "No monochrome DICOM images")):
        given = [str(tmp_path / folder)]
        if command is validation.main:
            given = ["sources", *given, "--measure", *given, "--table", str(tmp_path / "table.md")]
        else:
            given += ["--models", str(tmp_path / "models")]
        with pytest.raises(SystemExit, match=sentence):
            command(given)


def test_validation_measures_each_source_with_a_model_that_never_saw_it(data: Path, tmp_path: Path) -> None:
    table, quick = tmp_path / "table.md", ["--steps", "5", "--batch", "64", "--most", "1000"]
    given = [str(data), "--measure", str(data), "--table", str(table), *quick]
    validation.main(["sources", *given, "--words", "ALPHA", "BETA"])
    lines = table.read_text().splitlines()
    assert sum(line.startswith("| CT ") for line in lines) == 3
    assert "| *BETA: 2 of 3 series left out* | | | | |" in lines
    with pytest.raises(SystemExit, match="GAMMA is the source of no series"):
        validation.main(["sources", *given, "--words", "GAMMA"])


def test_validation_measures_each_kind_of_images_with_a_model_of_its_own(data: Path, tmp_path: Path) -> None:
    table, quick = tmp_path / "table.md", ["--steps", "5", "--batch", "64", "--most", "1000"]
    validation.main(["modalities", str(data / "alpha"), "--measure", str(data), "--table", str(table), *quick])
    lines = table.read_text().splitlines()
    assert "| *CT: 1 of 1 series trained on* | | | | |" in lines
    assert lines[-1].startswith("| geometric mean of 3 |")


def test_nothing_is_found_where_everything_is_left_out(data: Path) -> None:
    with pytest.raises(NoTrainingData, match="name folders with a series each"):
        stacks.read_all([data], [str(data)])
