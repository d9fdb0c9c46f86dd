"""What every job works with: the settings, the index, the spool and the archive."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from thinfilm_gateway import volumes
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import ObjectStore, make_folder
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dicom.budget import decode_budget
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.policy import lossless
from thinfilm_gateway.policy.lossless import Treatment


@dataclass(frozen=True)
class Context:
    """The rooms a job function may touch. One a process: the database's connections do not survive a fork."""

    settings: Settings
    database: Database
    spool: Spool
    store: ObjectStore
    on_gpu: bool = False

    @classmethod
    def open(cls, settings: Settings, on_gpu: bool = False) -> Self:
        """Open the rooms that the settings name, by their marks in the index, if it answers now.

        on_gpu: this process has a GPU to itself. Whoever opens it disposes of the database.
        """
        return cls.over(settings, Database(settings.index_url), on_gpu)

    @classmethod
    def over(cls, settings: Settings, database: Database, on_gpu: bool = False) -> Self:
        """Open the rooms over an index that is open."""
        decode_budget().resize(settings.decode_budget_bytes)
        spool, store = volumes.open_spool(settings, database), volumes.open_store(settings, database)
        return cls(settings, database, spool, store, on_gpu)

    @property
    def treatment(self) -> Treatment:
        """How this process compresses: a GPU tries hardest, since it has the time."""
        if self.on_gpu:
            return lossless.treatment(self.settings.lossless_codecs, "max", "cuda")
        return lossless.treatment(self.settings.lossless_codecs, self.settings.lossless_preset)

    @property
    def work_dir(self) -> Path:
        """Folder of containers in the making, on the archive's volume so that they can be renamed into it.

        Raises StorageAway.
        """
        self.store.check()
        folder = self.settings.archive_dir / "work"
        make_folder(folder)
        return folder
