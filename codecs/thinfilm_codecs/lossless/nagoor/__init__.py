"""The nagoor codec: the large perceptron over local samples that the neural codec descends from, made exact."""

from thinfilm_codecs.lossless.nagoor.codec import Nagoor

__all__ = ["Nagoor"]
