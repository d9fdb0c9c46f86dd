"""What this installation lacks of what its settings ask for."""

from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_codecs import registry
from thinfilm_codecs.lossless.model_files import lacking
from thinfilm_codecs.lossless.neural import compiled, kernels
from thinfilm_gateway.config import Settings
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index import holdings
from thinfilm_gateway.index.database import Database

log = structlog.get_logger()


def examination(settings: Settings, database: Database) -> Callable[[], list[HealthWarning]]:
    """Return what tells what is missing here. What the archive needs is looked up once, now: every row is read."""
    of_archive = _of_archive(database)
    return lambda: [*of_archive, *warnings(settings)]


def _of_archive(database: Database) -> list[HealthWarning]:
    try:
        with database.reading() as session:
            needed = holdings.codecs(session)
    except SQLAlchemyError as error:  # scrub and every retrieval tell, too
        log.warning("index_away", error=type(error).__name__)
        return []
    missing = sorted(needed - {*registry.names(), *registry.lossy_names(), ""})
    return [
        HealthWarning(
            f"codec_missing {codec_id}",
            f"Containers of the archive need the codec {codec_id}, which this version of Thinfilm does not have; "
            "install the version that wrote them, or a later one.",
        )
        for codec_id in missing
    ]


def warnings(settings: Settings) -> list[HealthWarning]:
    """Return what is missing here; asked every few seconds by each process that compresses, and by the gateway."""
    found = [HealthWarning(f"model_missing {number}", sentence) for number, sentence in enumerate(lacking())]
    kernels.check_when_due()
    found += [HealthWarning(f"kernel_wrong {name}", sentence) for name, sentence in kernels.faults().items()]
    if "neural" in settings.lossless_codecs and not compiled.instruction_sets():
        found.append(
            HealthWarning(
                "kernel_missing",
                "The neural codec is among lossless_codecs and is not used, since its compiled kernel was not built; "
                "install the wheel of this platform, or a C compiler and Thinfilm again.",
            )
        )
    return found
