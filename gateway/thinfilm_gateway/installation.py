"""What this installation lacks of what its settings ask for."""

from thinfilm_codecs.lossless.neural import compiled
from thinfilm_gateway.config import Settings
from thinfilm_gateway.health_warning import HealthWarning


def warnings(settings: Settings) -> list[HealthWarning]:
    """Return what is missing here; asked every few seconds by each process that compresses, and by the gateway."""
    found = []
    if "neural" in settings.lossless_codecs and not compiled.instruction_sets():
        found.append(
            HealthWarning(
                "kernel_missing",
                "The neural codec is among lossless_codecs and is not used, since its compiled kernel was not built; "
                "install the wheel of this platform, or a C compiler and Thinfilm again.",
            )
        )
    return found
