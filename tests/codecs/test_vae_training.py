"""Training of the vae codec: resumable, exported as the codec decodes, and compared by measured curves."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from thinfilm_codecs.lossy.vae import transforms
from thinfilm_codecs.lossy.vae.model import from_arrays
from thinfilm_codecs.training.resuming import OtherRun
from thinfilm_codecs.training.stacks import Series
from thinfilm_codecs.training.vae import ablation, crops, run, start
from thinfilm_codecs.training.vae.__main__ import main
from thinfilm_codecs.training.vae.crops import Crops
from thinfilm_codecs.training.vae.export import model_arrays
from thinfilm_codecs.training.vae.losses import squared_error, structural_dissimilarity
from thinfilm_codecs.training.vae.network import VARIANTS, Autoencoder, cosines
from thinfilm_codecs.training.vae.run import Plan, train


def series(seed: int = 0) -> Series:
    random = np.random.default_rng(seed)
    y, x = np.indices((120, 110))
    samples = 500 + 300 * np.sin(x / 9 + seed) * np.cos(y / 14) + random.normal(0, 8, (3, 120, 110))
    return Series(f"series {seed}", samples.astype(np.int16), "", "CT")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops, "SIZE", 32)
    monkeypatch.setattr("thinfilm_codecs.training.vae.__main__._COUNTED", range(9, 12))
    monkeypatch.setattr(run, "_CALIBRATION", 6)
    monkeypatch.setattr(start, "_FIT_STEPS", 3)


def _digest(network: Autoencoder) -> str:
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_training_that_was_stopped_ends_where_it_would_have_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Crops([series(0), series(1)], 0, 3)
    whole = train(drawn, Plan("ours", 4), "cpu", tmp_path / "whole", every=2)
    kept: list[int] = []

    def stopping(network: Autoencoder, *arguments: object) -> torch.Tensor:
        if len(kept) == 3:
            raise KeyboardInterrupt
        kept.append(1)
        return step(network, *arguments)

    step = run._step
    monkeypatch.setattr(run, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(drawn, Plan("ours", 4), "cpu", tmp_path / "parts", every=2)
    monkeypatch.setattr(run, "_step", step)
    assert _digest(train(drawn, Plan("ours", 4), "cpu", tmp_path / "parts", every=2)) == _digest(whole)
    with pytest.raises(OtherRun):
        train(drawn, Plan("ours", 5), "cpu", tmp_path / "parts")


def test_the_exported_model_codes_what_the_network_would(tmp_path: Path) -> None:
    drawn = Crops([series()], 0, 3)
    network = train(drawn, Plan("ours", 3), "cpu", tmp_path / "checkpoint")
    with torch.no_grad():
        torch.nn.init.normal_(network.synthesis[-1].weight, std=0.01, generator=torch.Generator().manual_seed(3))
    model = from_arrays(model_arrays(network, drawn, range(50, 53)))
    values, quality = drawn(99)[0, 0].numpy(), 36
    level = torch.tensor([quality * 7 / 63])
    with torch.no_grad():
        latents = network.analyse(torch.from_numpy(values)[None, None])
        gain, inverse = network.gains(level)
        hyper, _, log_scales = network.measure(latents * gain)
        wanted = network.synthesise(torch.round(latents * gain) * inverse)[0, 0].numpy()
    found = transforms.analyse(model, values) * model.gains[quality][:, None, None]
    assert np.abs(found - (latents * gain)[0].numpy()).max() < 0.05 + 0.002 * np.abs(found).max()
    indices = transforms.scale_indices(model, hyper[0].long().numpy())
    assert np.abs(indices - (log_scales[0].numpy() + 5) * 4).max() < 0.6
    outputs = transforms.synthesise(model, torch.round(latents * gain)[0].long().numpy(), quality) / 1024
    assert np.abs(outputs - wanted).max() < 0.02 + 0.002 * np.abs(wanted).max()


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("loss", ["mse", "ms-ssim"])
def test_every_variant_learns_by_every_loss(
    variant: str, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "SIZE", 64)
    drawn = Crops([series()], 0, 3)
    network = train(drawn, Plan(variant, 2, loss=loss), "cpu", tmp_path / "checkpoint")
    for name, value in network.named_parameters():
        assert value.isfinite().all(), name


def test_the_linear_path_begins_as_an_orthonormal_transform() -> None:
    basis = cosines().flatten(1)
    assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-5)


def test_the_losses_are_nothing_for_equal_images_and_grow_with_errors() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 20, (2, 1, 64, 64))).float()
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 1, (2, 1, 64, 64))).float()
    for loss in (squared_error, structural_dissimilarity):
        found = [loss(values + size * noise, values) for size in (0, 1, 4)]
        assert torch.allclose(found[0], torch.zeros(2), atol=1e-4)
        assert (found[0] < found[1]).all()
        assert (found[1] < found[2]).all()


def test_rate_differences_are_those_of_shifted_curves() -> None:
    def curve(factor: float, rise: float = 0.0) -> list[ablation.Point]:
        rates = (0.1, 0.2, 0.4, 0.8, 1.6)
        return [ablation.Point("s", "CT", "c", rate * factor, 30 + 6 * np.log2(rate) + rise) for rate in rates]

    assert ablation.rate_difference(curve(0.9), curve(1)) == pytest.approx(-0.1)
    assert ablation.rate_difference(curve(1), curve(1)) == pytest.approx(0)
    assert ablation.rate_difference(curve(1, rise=90), curve(1)) is None


def test_a_folder_of_dicom_becomes_a_model_and_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data" / "series"
    data.mkdir(parents=True)
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), data)
    checkpoint, models = tmp_path / "checkpoint", tmp_path / "models"
    command = [str(data.parent), "--checkpoint", str(checkpoint), "--steps", "2"]
    assert main([*command, "--models", str(models)]) == 0
    assert len(list(models.glob("*.npz"))) == 1
    assert (
        ablation.main([str(data.parent), "--frames", "1", "--checkpoints", f"ours={checkpoint}", "--codecs", "vae"])
        == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert ("vae", "jpeg2000") in {(row["codec"], row["reference"]) for row in rows}
    assert main([str(tmp_path / "nothing"), "--checkpoint", str(checkpoint)]) == 1
