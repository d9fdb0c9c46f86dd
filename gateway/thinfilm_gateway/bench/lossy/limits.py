"""How much of each series slow codecs are measured on."""

from collections.abc import Sequence

from thinfilm_gateway.bench.lossy import entrants


class BadLimit(Exception):
    """A limit that is none; the message is one sentence."""


def parse(limits: Sequence[str]) -> dict[str, int]:
    """Return samples by codec of "CODEC=MPIXEL". Raises BadLimit, or UnknownEntrant for a codec that there is not."""
    found = {}
    for limit in limits:
        name, _, mpixel = limit.partition("=")
        entrants.check([name])
        try:
            found[name] = int(float(mpixel) * 1e6)
        except ValueError:
            raise BadLimit(f"A limit is CODEC=MPIXEL, say siren=0.1; got {limit!r}.") from None
    return found
