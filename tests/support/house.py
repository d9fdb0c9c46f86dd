"""A gateway's data folder and index, filled without a network, as a receiver fills them."""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from support.datasets import EncodedDataSet
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.objects import ObjectLocation, ObjectReader
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dicom.dataset import outline
from thinfilm_gateway.heart import process_name
from thinfilm_gateway.index.ingest import Outcome, Received, register_all
from thinfilm_gateway.index.models import AuditEvent, Base, Container, Instance, Job
from thinfilm_workers import runner
from thinfilm_workers.context import Context

NOW = dt.timedelta(0)


@dataclass(frozen=True)
class House:
    """The rooms of a gateway and what tests ask of them."""

    context: Context

    @classmethod
    def build(cls, folder: Path, database_url: str, **overrides: Any) -> "House":
        """Make a data folder; the index is migrated already."""
        values = {
            "data_dir": folder / "data",
            "database_url": database_url,
            "lossless_codecs": ("jpegls",),
            "minimum_free_bytes": 0,
            "warning_free_bytes": 0,
            **overrides,
        }
        return cls(Context.open(Settings(**values)))

    def receive(
        self, objects: Iterable[EncodedDataSet], quiet: dt.timedelta = NOW, sender: str = "SENDER"
    ) -> list[Outcome]:
        """Spool and register objects, as a receiver does before it answers with success."""
        outcomes = []
        for encoded in objects:
            received = self.spool(encoded, sender)
            policy = self.context.settings.duplicates
            (outcome,) = register_all(self.context.database, [received], quiet, duplicates=policy)
            if outcome is Outcome.IDENTICAL:
                self.context.spool.set_aside(str(received.spool_name))
            elif outcome is Outcome.REJECTED:
                self.context.spool.remove(str(received.spool_name))
            outcomes.append(outcome)
        return outcomes

    def spool(self, encoded: EncodedDataSet, sender: str = "SENDER") -> Received:
        """Bring an object into the spool only."""
        received_at = dt.datetime.now(dt.UTC)
        header = part10.build(
            encoded.sop_class_uid,
            encoded.sop_instance_uid,
            encoded.transfer_syntax_uid,
            sender,
            "192.0.2.7",
            received_at,
        )
        writer = self.context.spool.create()
        writer.write(header)
        writer.begin_dataset()
        writer.write(encoded.dataset)
        received = Received(
            attributes=outline(encoded.dataset, encoded.transfer_syntax_uid).attributes,
            sop_instance_uid=encoded.sop_instance_uid,
            sop_class_uid=encoded.sop_class_uid,
            transfer_syntax_uid=encoded.transfer_syntax_uid,
            sha256=writer.sha256,
            dataset_bytes=writer.dataset_bytes,
            dataset_offset=writer.dataset_offset,
            spool_name=None,
            sender_ae_title=sender,
            sender_address="192.0.2.7",
            received_at=received_at,
        )
        self.context.spool.commit([writer])
        return dataclasses.replace(received, spool_name=writer.name)

    def work(self) -> int:
        """Do every job that is due, in this process; return how many."""
        done = 0
        while runner.run_next(self.context, process_name(), runner.QUEUES):
            done += 1
        return done

    def archive_alone(self, objects: Iterable[EncodedDataSet]) -> None:
        """Let objects lie in the archive alone: the cache lets their spool copies go."""
        self.receive(objects)
        self.work()
        for instance in self.instances():
            self.context.spool.remove(str(instance.spool_name))
        with self.context.database.session() as session:
            session.execute(update(Instance).values(spool_name=None))

    def rows(self, model: type[Base]) -> list[Any]:
        """Return all rows of a table, in the order of their keys."""
        with self.context.database.reading() as session:
            return list(session.scalars(select(model).order_by(model.id)))  # type: ignore[attr-defined]

    def instances(self) -> list[Instance]:
        return self.rows(Instance)

    def containers(self) -> list[Container]:
        return self.rows(Container)

    def jobs(self) -> list[Job]:
        return self.rows(Job)

    def states(self) -> list[str]:
        """Return the states of all instances, in the order of arrival."""
        return [instance.state.value for instance in self.instances()]

    def audits(self, kind: str) -> list[AuditEvent]:
        return [event for event in self.rows(AuditEvent) if event.kind == kind]

    def count(self, model: type[Base]) -> int:
        with self.context.database.reading() as session:
            return session.scalar(select(func.count()).select_from(model)) or 0

    def container_path(self, key: str) -> Path:
        return self.context.settings.archive_dir / key

    def spool_path(self, instance: Instance) -> Path:
        assert instance.spool_name is not None
        return self.context.spool.path(instance.spool_name)

    def stray_files(self) -> list[Path]:
        """Return what lies in spool and archive without a row that names it."""
        spooled = {self.context.spool.path(row.spool_name) for row in self.instances() if row.spool_name}
        archived = {self.container_path(container.key) for container in self.containers()}
        kept = spooled | archived
        folders = (self.context.settings.spool_dir, self.context.settings.archive_dir)
        return [path for folder in folders for path in folder.rglob("*") if path.is_file() and path not in kept]

    def assert_retrievable(self, objects: Sequence[EncodedDataSet]) -> None:
        """Fail unless every object comes back byte for byte, whatever copies there are."""
        reader = ObjectReader(self.context.spool, self.context.store, 1 << 20)
        try:
            for encoded in objects:
                sha256 = hashlib.sha256(encoded.dataset).hexdigest()
                (row,) = [row for row in self.instances() if row.sha256 == sha256]
                with reader.fetch(self._location(row)) as fetched:
                    assert bytes(fetched.dataset) == encoded.dataset
        finally:
            reader.close()

    def assert_archived(self, objects: Sequence[EncodedDataSet]) -> None:
        """Fail unless every object is archived and its container alone gives it back byte for byte."""
        keys = {container.id: container.key for container in self.containers()}
        rows = {row.sha256: row for row in self.instances()}
        for encoded in objects:
            row = rows[hashlib.sha256(encoded.dataset).hexdigest()]
            assert row.state.value == "archived"
            with self.context.store.open(keys[row.container_pk]) as reader:
                assert open_container(reader).read_dataset(row.container_entry) == encoded.dataset

    def _location(self, row: Instance) -> ObjectLocation:
        keys = {container.id: container.key for container in self.containers()}
        key = keys.get(row.container_pk) if row.container_pk else None
        return ObjectLocation(
            row.spool_name, key, row.container_entry, row.dataset_offset, row.dataset_bytes, row.sha256
        )


def flip_byte(path: Path, offset: int) -> None:
    """Damage one byte of a file; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def make_due(house: House) -> None:
    """Spare a test the pause before the next attempt of a job."""
    with house.context.database.session() as session:
        session.execute(update(Job).values(not_before=dt.datetime.now(dt.UTC)))
