"""Which kernels compute rightly: each must give known answers before it is used, and again once a day.

A compiler, a processor or its memory can make one of them wrong in a case that its own decoder repeats.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural import compiled
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network, shipped
from thinfilm_codecs.lossless.neural.parameters import unpack
from thinfilm_codecs.lossless.neural.planes import Geometry, padded, unpadded
from thinfilm_codecs.lossless.neural.preparation import as_frames

CHECK_SECONDS = 24 * 3600.0  # between two checks of a process
ANSWERS = "known_answers.npz"


@dataclass(frozen=True, eq=False)
class Answer:
    """Values (frames, rows, columns), all that they are coded with, and the stream that this gives."""

    values: npt.NDArray[np.uint16]
    geometry: Geometry
    linear: Linear
    network: Network
    model: Model
    stream: bytes


def usable() -> list[str]:
    """Return the names of the kernels that run here and gave the known answers, fastest first."""
    check_when_due()
    return [name for name in compiled.instruction_sets() if name not in _state.faults]


def faults() -> Mapping[str, str]:
    """Return a sentence with its mend for each kernel that gave wrong answers, by its name; none before a check."""
    return dict(_state.faults)


def second() -> str | None:
    """Return the fastest of the usable kernels after that which is used; None if there is none."""
    return next(iter(usable()[1:]), None)


def check_when_due() -> None:
    """Let all kernels give the known answers, unless they did within a day. One that failed is not tried again."""
    if time.monotonic() < _state.due:
        return
    with _state.lock:
        if time.monotonic() < _state.due:
            return
        for name in compiled.instruction_sets():
            if name not in _state.faults and not _is_right(name):
                _state.faults[name] = (
                    f"The {name} kernel of the neural codec computes wrongly here and is not used; slower ones are. "
                    "Test the memory and the processor of this machine, then install Thinfilm again and restart it."
                )
        _state.due = time.monotonic() + CHECK_SECONDS


def forget() -> None:
    """Check anew at the next use, for processes in which the kernels themselves were exchanged."""
    _state.faults.clear()
    _state.due = 0.0


class _State:
    """What is known of the kernels of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.due = 0.0
        self.faults: dict[str, str] = {}


_state = _State()


def _is_right(name: str) -> bool:
    for answer in answers():
        how = answer.geometry, answer.linear, answer.network, answer.model
        try:
            group = compiled.Group(answer.geometry, padded(answer.values, answer.geometry), answer.geometry.empty(0))
            if compiled.encode(group, *how[1:], name) != answer.stream:
                return False
            decoded = compiled.decode(answer.stream, *how, name)
        except Exception:  # whatever a faulty kernel does, others take over
            return False
        if decoded is None or not np.array_equal(unpadded(decoded, answer.geometry), answer.values):
            return False
    return True


@lru_cache(maxsize=1)
def answers() -> tuple[Answer, ...]:
    """Return the known answers: small groups of each kind of samples, both models, fitted and wild networks."""
    with resources.files(__package__ or "").joinpath(ANSWERS).open("rb") as file, np.load(file) as found:
        arrays = dict(found)
    made = []
    for name in sorted({key.partition("/")[0] for key in arrays}):
        parts = {key.partition("/")[2]: array for key, array in arrays.items() if key.startswith(f"{name}/")}
        made.append(_answer(parts))
    return tuple(made)


def _answer(parts: Mapping[str, npt.NDArray[np.generic]]) -> Answer:
    stream = parts["stream"].tobytes()
    if "parameters" not in parts:  # of the shipped model, with a network of its own
        samples, model = np.asarray(parts["samples"], np.uint16), shipped()
        network = Network(
            (parts["weights_1"], parts["weights_2"], parts["weights_3"]),  # type: ignore[arg-type]
            (parts["biases_1"], parts["biases_2"], parts["biases_3"]),  # type: ignore[arg-type]
        )
        frames, rows, columns = samples.shape
        geometry = Geometry(frames, rows, columns, 1, 2, 65535)
        return Answer(samples, geometry, model.linear, network, model, stream)
    p = unpack(parts["parameters"].tobytes())
    values = p.values.values(as_frames(parts["samples"]))
    frames, rows, columns = values.shape
    geometry = Geometry(frames, rows, columns, p.lag_a, p.lag_b, p.values.maximum)
    return Answer(values, geometry, p.linear, p.network, p.model, stream)
