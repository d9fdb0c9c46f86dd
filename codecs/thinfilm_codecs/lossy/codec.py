"""The contract of a lossy codec."""

from abc import abstractmethod
from typing import ClassVar, Self

from thinfilm_codecs.codec import Codec


class LossyCodec(Codec):
    """A codec whose streams decode to samples near those that were coded: the nearer, the gentler its setting.

    What a stream decodes to is exact: the same samples on every machine, device and thread count, for ever, since an
    object derived from an image is kept by its stream alone and proven by the SHA-256 of its bytes. So decoders compute
    in integers, or in floating point whose every result is an exactly represented integer.
    """

    setting_name: ClassVar[str]
    """What the setting is, in the field's words: "step", "coefficients", "quality"."""

    ladder: ClassVar[tuple[float, ...]]
    """The settings there are, gentlest first; each codes to fewer bits than the one before, as a rule."""

    @property
    @abstractmethod
    def setting(self) -> float:
        """The setting that this codec encodes with, one of `ladder`. Every setting decodes the streams of all."""

    @abstractmethod
    def at(self, setting: float) -> Self:
        """Return the codec of this setting. Raises ValueError if it is not on the ladder."""

    def aiming_at(self, max_error: int) -> Self:
        """Return the codec that tries no harder once no sample is likely to be further off; itself where none tries."""
        del max_error
        return self

    @property
    def promised_error(self) -> int | None:
        """The largest absolute error that any sample can have, by construction; None where none is promised."""
        return None
