"""Installations that lack something: a codec that a later version has, a model that was not packed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest

from thinfilm_codecs import registry
from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossless.neural import codec as neural_codec
from thinfilm_codecs.lossless.neural import model as neural_model


@contextmanager
def without_codec(codec_id: str) -> Iterator[None]:
    """Be a version that has no codec of this id."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(registry._CODECS, codec_id)
        yield


@contextmanager
def without_neural_models(folder: Path, *, damaged: bool = False) -> Iterator[None]:
    """Be an installation in which the models of the neural codec are missing, or damaged."""
    models = folder / "models"
    models.mkdir()
    if damaged:
        for file in resources.files("thinfilm_codecs.lossless.neural").joinpath("models").iterdir():
            (models / file.name).write_bytes(file.read_bytes()[:-100])
    real = resources.files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model_files.resources, "files", lambda package: folder if package.endswith(".neural") else real(package)
        )
        _forget()
        yield
    _forget()
    shutil.rmtree(models)


def _forget() -> None:
    """Forget what this process has loaded."""
    neural_model.named.cache_clear()
    neural_codec._unpacked.cache_clear()
    model_files.lacking.cache_clear()
