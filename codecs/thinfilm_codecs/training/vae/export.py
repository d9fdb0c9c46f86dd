"""A trained autoencoder in the integers of the codec's model files."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossy.vae import model as format_
from thinfilm_codecs.training.vae.crops import Crops
from thinfilm_codecs.training.vae.network import Autoencoder, Norms, Residual

_TOTAL = 1 << 16
_PRIOR_SYMBOLS = 2000
_WIDEST = 12


def model_arrays(network: Autoencoder, crops: Crops, steps: range) -> model_files.Arrays:
    """Return the arrays of a model file. The tables count what the latents of the crops of these steps are.

    Raises ValueError if a decoder of the model could be inexact.
    """
    network = network.cpu().eval()
    arrays = _decoder(network) | _encoder(network)
    levels = torch.linspace(0, network.log_gains.shape[0] - 1, format_.QUALITIES)
    gains, inverse = (each[:, :, 0, 0].detach().numpy() for each in network.gains(levels))
    arrays["gains"] = gains.astype(np.float32)
    arrays["inverse_gains"] = np.rint(inverse * 2**format_.INVERSE_GAIN_BITS).astype(np.int32)
    arrays["frequencies"], arrays["hyper_frequencies"] = _frequencies(network, crops, steps)
    format_.from_arrays(arrays)
    return arrays


def _decoder(network: Autoencoder) -> model_files.Arrays:
    up_1, residual_1, norms_1, up_2, residual_2, norms_2, up_3 = network.synthesis
    hyper_up, _, hyper_residual, hyper_out = network.hyper_synthesis
    sums = format_.ACTIVATION_BITS + format_.WEIGHT_BITS
    one = format_.ACTIVATION_BITS
    found = _integers("hyper_up", hyper_up, format_.WEIGHT_BITS, format_.WEIGHT_BITS)
    found |= _residual_integers("hyper_first", "hyper_second", hyper_residual)
    found |= _integers("hyper_out", hyper_out, format_.WEIGHT_BITS, sums)
    weights = up_1.weight.detach() / network.sizes[:, None, None, None]
    first_sums = format_.LATENT_BITS + format_.FIRST_WEIGHT_BITS
    found |= _rounded("up_1", weights, up_1.bias, format_.FIRST_WEIGHT_BITS, first_sums)
    found |= _residual_integers("first_1", "second_1", residual_1)
    found |= _integers("up_2", up_2, format_.WEIGHT_BITS, sums)
    found |= _residual_integers("first_2", "second_2", residual_2)
    found |= _integers("up_3", up_3, format_.WEIGHT_BITS, sums)
    found |= _rounded("linear", network.linear_synthesis, torch.zeros(1), format_.LINEAR_WEIGHT_BITS, sums)
    for name, norms in (("norms_1", norms_1), ("norms_2", norms_2)):
        gamma, beta = _norms(norms)
        found[f"{name}_gamma"] = np.rint(gamma * 2**format_.NORM_BITS).astype(np.int32)
        found[f"{name}_beta"] = np.rint(beta * 2.0 ** (format_.NORM_BITS + 2 * one)).astype(np.int64)
    return found


def _encoder(network: Autoencoder) -> model_files.Arrays:
    down_1, norms_1, residual_1, down_2, norms_2, residual_2, down_3 = network.analysis
    hyper_in, _, hyper_residual, hyper_down = network.hyper_analysis
    layers = {
        "down_1": down_1, "down_first_1": residual_1.first, "down_second_1": residual_1.second,
        "down_2": down_2, "down_first_2": residual_2.first, "down_second_2": residual_2.second,
        "down_3": down_3,
        "hyper_in": hyper_in, "hyper_in_first": hyper_residual.first, "hyper_in_second": hyper_residual.second,
        "hyper_down": hyper_down,
    }  # fmt: skip
    found: model_files.Arrays = {}
    for name, layer in layers.items():
        found[f"{name}_weights"] = layer.weight.detach().contiguous().numpy().astype(np.float16)
        found[f"{name}_biases"] = layer.bias.detach().numpy().astype(np.float32)
    found["linear_down_weights"] = network.linear_analysis.detach().contiguous().numpy()
    found["linear_down_biases"] = np.zeros(len(network.linear_analysis), np.float32)
    for name, norms in (("down_norms_1", norms_1), ("down_norms_2", norms_2)):
        gamma, beta = _norms(norms)
        found[f"{name}_gamma"], found[f"{name}_beta"] = gamma.astype(np.float32), beta.astype(np.float32)
    return found


def _norms(norms: Norms) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    gamma, beta = norms.terms()
    return gamma.detach().double().numpy(), beta.detach().double().numpy()


def _integers(name: str, layer: nn.Module, bits: int, sums_bits: int) -> model_files.Arrays:
    return _rounded(name, layer.weight, layer.bias, bits, sums_bits)  # type: ignore[arg-type]


def _residual_integers(first: str, second: str, block: Residual) -> model_files.Arrays:
    sums = format_.ACTIVATION_BITS + format_.WEIGHT_BITS
    found = _integers(first, block.first, format_.WEIGHT_BITS, sums)
    return found | _integers(second, block.second, format_.WEIGHT_BITS, sums)


def _rounded(name: str, weights: Tensor, biases: Tensor, bits: int, sums_bits: int) -> model_files.Arrays:
    """Return a layer in integers, of as few bytes as hold it."""
    rounded = np.rint(weights.detach().double().contiguous().numpy() * 2**bits)
    narrow = np.abs(rounded).max() < 2**15
    return {
        f"{name}_weights": rounded.astype(np.int16 if narrow else np.int32),
        f"{name}_biases": np.rint(biases.detach().double().numpy() * 2.0**sums_bits).astype(np.int64),
    }


def _frequencies(network: Autoencoder, crops: Crops, steps: range) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the tables of the latents and of the side information: what is counted, upon what the network says."""
    levels_there = network.log_gains.shape[0] - 1
    counts = np.zeros((format_.SCALES, 2 * format_.BINS + 2))
    hyper_counts = np.zeros((len(network.hyper_centres), 2 * format_.HYPER_BINS + 2))
    shifts, sides = np.array(format_.scale_shifts()), np.array([_sides(i) for i in range(format_.SCALES)])
    with torch.no_grad():
        for step in steps:
            levels = torch.from_numpy(np.random.default_rng((1, step)).random(crops.batch)).float() * levels_there
            scaled = network.analyse(crops(step)) * network.gains(levels)[0]
            hyper, symbols, log_scales = network.measure(scaled)
            places = (log_scales - format_.LOWEST_LOG_SCALE) * 2**format_.SCALE_STEPS_BITS
            indices = torch.floor(places + 0.5).clamp(0, format_.SCALES - 1).long().numpy().ravel()
            values = symbols.long().numpy().ravel()
            bins = values >> shifts[indices]
            slots = np.where(np.abs(bins) > sides[indices], 2 * sides[indices] + 1, bins + sides[indices])
            np.add.at(counts, (indices, slots), 1)
            for channel, of_channel in enumerate(hyper.long().numpy().swapaxes(0, 1)):
                side = format_.HYPER_BINS
                slots = np.where(np.abs(of_channel) > side, 2 * side + 1, of_channel + side)
                np.add.at(hyper_counts[channel], slots.ravel(), 1)
    found = [_table(_logistic_bins(i), counts[i]) for i in range(format_.SCALES)]
    hyper_found = []
    for centre, log_scale, counted in zip(
        network.hyper_centres.tolist(), network.hyper_scales.tolist(), hyper_counts, strict=True
    ):
        edges = np.arange(-format_.HYPER_BINS, format_.HYPER_BINS + 2) - 0.5 - centre
        hyper_found.append(_table(_between(edges, 2.0**log_scale), counted))
    return np.stack(found), np.stack(hyper_found)


def _sides(index: int) -> int:
    """Return the bins on either side of that around 0 that the table of a scale has."""
    scale = 2.0 ** (index / 2**format_.SCALE_STEPS_BITS + format_.LOWEST_LOG_SCALE)
    return int(min(max(np.ceil(_WIDEST * scale / 2 ** format_.scale_shifts()[index]), 1), format_.BINS))


def _logistic_bins(index: int) -> npt.NDArray[Any]:
    scale = 2.0 ** (index / 2**format_.SCALE_STEPS_BITS + format_.LOWEST_LOG_SCALE)
    edges = np.arange(-_sides(index), _sides(index) + 2) * 2.0 ** format_.scale_shifts()[index] - 0.5
    return _between(edges, scale)


def _between(edges: npt.NDArray[Any], scale: float) -> npt.NDArray[Any]:
    """Return the probabilities between edges by a logistic distribution, and that of what is outside."""
    below = 0.5 * (1 + np.tanh(edges / (2 * scale)))
    inside = np.diff(below)
    return np.append(inside, max(0.0, 1 - inside.sum()))


def _table(probabilities: npt.NDArray[Any], counted: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return frequencies of at least 1 that sum to 2^16, padded with zeros to the length of `counted`."""
    used = len(probabilities)
    mixed = (probabilities * _PRIOR_SYMBOLS + counted[:used]) / (_PRIOR_SYMBOLS + counted[:used].sum())
    frequencies = 1 + np.floor(mixed * (_TOTAL - used)).astype(np.int64)
    frequencies[np.argmax(frequencies)] += _TOTAL - frequencies.sum()
    found = np.zeros(len(counted), np.uint16)
    found[:used] = frequencies
    return found
