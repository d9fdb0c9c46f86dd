"""Tells whether the copies that the index names lie in spool and archive, without reading them."""

from dataclasses import dataclass

from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import ObjectStore, StorageAway


@dataclass(frozen=True)
class NamedCopies:
    """The copies of one object as the index names them, None where it names none; sizes of whole files in bytes."""

    spool_name: str | None
    spool_bytes: int
    container_key: str | None
    container_bytes: int | None

    def __bool__(self) -> bool:
        return self.spool_name is not None or self.container_key is not None


class Presence:
    """Looks into one spool and one store; many threads may use it."""

    def __init__(self, spool: Spool, store: ObjectStore) -> None:
        self._spool = spool
        self._store = store

    def any_lies_there(self, copies: NamedCopies) -> bool:
        """Tell whether at least one of the copies is there at its full size; one that cannot be looked at is not."""
        return self._is_spooled(copies) or self._is_archived(copies)

    def may_be_away(self, copies: NamedCopies) -> bool:
        """Tell whether the archive that a copy should lie in is away as a whole, so that nothing there is lost."""
        if copies.container_key is None:
            return False
        try:
            self._store.check_mounted()
        except (StorageAway, OSError):
            return True
        return False

    def _is_spooled(self, copies: NamedCopies) -> bool:
        try:
            return copies.spool_name is not None and self._spool.size(copies.spool_name) == copies.spool_bytes
        except OSError:
            return False

    def _is_archived(self, copies: NamedCopies) -> bool:
        if copies.container_key is None:
            return False
        try:
            with self._store.open(copies.container_key) as container:
                return container.size == copies.container_bytes
        except OSError:
            return False
