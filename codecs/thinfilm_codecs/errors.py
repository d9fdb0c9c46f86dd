"""What a codec may raise."""


class CodecError(Exception):
    """A codec refused its input; the message is one sentence for an operator."""


class UnsupportedPixels(CodecError):
    """The codec cannot code samples of this layout or range."""


class CorruptStream(CodecError):
    """The bytes are not a stream that this codec wrote."""


class MissingModel(CodecError):
    """The stream may be good, but the model that it names is not installed, or its file is damaged."""


class MissingDevice(CodecError):
    """The machine lacks the device, or the library for it, that a codec was to compute on."""
