"""What a process of Thinfilm that stays, or works on what is kept, begins with: its settings and its logs."""

from pathlib import Path
from typing import Any

import structlog

from thinfilm_gateway import config, logs
from thinfilm_gateway.config import Settings
from thinfilm_gateway.privacy import readable_secrets

log = structlog.get_logger()


def begin(file: Path | None, **overrides: Any) -> Settings:
    """Read the settings as `config.load` does, set up the logs, and warn of secrets that every user can read.

    Raises ConfigError.
    """
    settings = config.load(file, **overrides)
    logs.configure(settings.log_level)
    for path in readable_secrets(settings, file or config.file_of_environment()):
        log.warning("secret_readable", path=str(path), mend=f"Every user of this host can read it: chmod o= {path}")
    return settings
