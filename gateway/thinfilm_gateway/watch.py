"""Tells the log when room for objects runs out and when there is some again, once each time."""

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway import data_folder
from thinfilm_gateway.config import Settings
from thinfilm_gateway.data_folder import Room
from thinfilm_gateway.index import volumes
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.lasting_thread import LastingThread

log = structlog.get_logger()

LOOK_SECONDS = 5.0
KINDS = ("refusal", "obstacle", "warning")


class RoomWatch(LastingThread):
    """A thread of the gateway that looks at spool and archive every few seconds."""

    def __init__(self, settings: Settings, database: Database) -> None:
        super().__init__("room watch", self._look)
        self._settings = settings
        self._database = database

    def _look(self) -> None:
        before = Room(None, None)
        while not self.stopping.is_set():
            try:
                with self._database.reading() as session:
                    known = volumes.known(session)
                before = _tell_changes(before, data_folder.room(self._settings, known))
            except (SQLAlchemyError, OSError) as error:  # those who need it tell more
                log.debug("room_not_seen", error=type(error).__name__)
            self.stopping.wait(LOOK_SECONDS)


def _tell_changes(before: Room, now: Room) -> Room:
    for kind in KINDS:
        said, sentence = getattr(before, kind), getattr(now, kind)
        if sentence and not said:
            log.warning("room_short", kind=kind, reason=sentence)
        elif said and not sentence:
            log.warning("room_again", kind=kind)
    return now
