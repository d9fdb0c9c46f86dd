"""What a codec may raise."""


class CodecError(Exception):
    """A codec refused its input; the message is one sentence for an operator."""


class UnsupportedPixels(CodecError):
    """The codec cannot code samples of this layout or range."""


class CorruptStream(CodecError):
    """The bytes are not a stream that this codec wrote."""


class MissingModel(CorruptStream):
    """The bytes name a model that is not installed, or whose file is damaged; they may be good themselves."""


class MissingDevice(CodecError):
    """The machine lacks the device, or the library for it, that a codec was to compute on."""
