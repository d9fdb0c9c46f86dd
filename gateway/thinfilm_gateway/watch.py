"""Tells the log what is wrong with the gateway, once when it begins and once when it ends."""

from collections.abc import Mapping

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway import data_folder, health
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index import volumes
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.lasting_thread import LastingThread

log = structlog.get_logger()

LOOK_SECONDS = 5.0


class HealthWatch(LastingThread):
    """A thread of the gateway that looks every few seconds."""

    def __init__(self, settings: Settings, database: Database) -> None:
        super().__init__("health watch", self._watch)
        self._settings = settings
        self._database = database
        self._told: dict[str, str] = {}

    def _watch(self) -> None:
        while not self.stopping.is_set():
            try:
                found = self._look()
            except (SQLAlchemyError, OSError) as error:  # those who need it tell more
                log.debug("health_not_seen", error=type(error).__name__)
            else:
                _tell_changes(self._told, found)
                self._told = found
            self.stopping.wait(LOOK_SECONDS)

    def _look(self) -> dict[str, str]:
        with self._database.reading() as session:
            room = data_folder.room(self._settings, volumes.known(session))
            return {warning.name: warning.sentence for warning in health.warnings(self._settings, session, room)}


def _tell_changes(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name in now.keys() - before.keys():
        log.warning("health_warning", name=name, reason=now[name])
    for name in before.keys() - now.keys():
        log.info("health_warning_over", name=name)
