"""What this installation lacks of what its settings ask for."""

from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_codecs import registry
from thinfilm_codecs.lossless.model_files import lacking
from thinfilm_codecs.lossless.neural import kernels
from thinfilm_gateway.config import Settings
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index import holdings
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.policy import lossless

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
    kernels.check_when_due()
    found = {f"model_missing {number}": sentence for number, sentence in enumerate(lacking())}
    found |= {f"kernel_wrong {name}": sentence for name, sentence in kernels.faults().items()}
    found |= {f"codec_unusable {name}": sentence for name, sentence in lossless.obstacles(_codecs(settings)).items()}
    return [HealthWarning(name, sentence) for name, sentence in found.items()]


def check(settings: Settings) -> None:
    """Raise UnusableCodec where the settings name a codec by which nothing can be encoded here.

    Of codecs that nobody named, since they are there by default, the others do the work, and `warnings` tells of them.
    Raises UnknownTreatment for a name that no codec has.
    """
    lossless.treatment(settings.lossless_codecs)
    are_named = "lossless_codecs" in settings.model_fields_set
    lossless.check_usable(_codecs(settings) if are_named else _lossy_codecs(settings))


def _codecs(settings: Settings) -> list[str]:
    return [*settings.lossless_codecs, *_lossy_codecs(settings)]


def _lossy_codecs(settings: Settings) -> list[str]:
    return [rule.codec for rule in settings.lossy]
