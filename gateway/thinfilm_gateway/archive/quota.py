"""The quota of the spool: how many bytes its files may take."""

import structlog

from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.lasting_thread import LastingThread

log = structlog.get_logger()

MEASURE_SECONDS = 2.0  # between two measurements; what comes in meanwhile may exceed the quota


class SpoolQuota(LastingThread):
    """Measures the spool again and again; looks at every file, so that what other processes write counts too."""

    def __init__(self, spool: Spool, quota_bytes: int) -> None:
        super().__init__("spool quota", self._keep_measuring)
        self.is_reached = False
        self._spool = spool
        self._quota_bytes = quota_bytes

    def start(self) -> None:
        """Measure, then go on in the thread."""
        self._measure()
        super().start()

    def _keep_measuring(self) -> None:
        while not self.stopping.wait(MEASURE_SECONDS):
            self._measure()

    def _measure(self) -> None:
        try:
            self.is_reached = self._spool.used_bytes() >= self._quota_bytes
        except OSError as error:  # then nothing can be stored anyway
            log.warning("spool_not_measured", error=str(error))
