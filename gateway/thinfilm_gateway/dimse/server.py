"""The receiver: one process that accepts associations; several of them share one port (PS3.8 9.1.2)."""

import contextlib
import datetime as dt
import errno
import gc
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from pynetdicom import AE, transport
from pynetdicom._globals import MODE_ACCEPTOR

from thinfilm_gateway import data_folder, volumes
from thinfilm_gateway.accepting import Patience
from thinfilm_gateway.archive.objects import ObjectReader
from thinfilm_gateway.archive.quota import SpoolQuota
from thinfilm_gateway.config import OPERATIONS, Operation, Settings
from thinfilm_gateway.dicom.budget import decode_budget
from thinfilm_gateway.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thinfilm_gateway.dimse import contexts, verification
from thinfilm_gateway.dimse.association import STORAGE, Admit, Association, OpenStore, Service
from thinfilm_gateway.dimse.commit import Committer
from thinfilm_gateway.dimse.commitment import CommitmentService
from thinfilm_gateway.dimse.information_models import FIND, GET, MOVE
from thinfilm_gateway.dimse.peers import Peers
from thinfilm_gateway.dimse.query import QueryService
from thinfilm_gateway.dimse.rejection import LOCAL_LIMIT_EXCEEDED, Rejected
from thinfilm_gateway.dimse.retrieve import RetrieveService
from thinfilm_gateway.dimse.secure_transport import Encryption, SecureAssociationSocket
from thinfilm_gateway.dimse.sharing import Load, Shared, listen
from thinfilm_gateway.dimse.storage import StorageService
from thinfilm_gateway.dimse.tls import acceptor_context
from thinfilm_gateway.dimse.transport import AssociationSocket
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.lasting_thread import LastingThread
from thinfilm_gateway.stop_signal import stop_signal

log = structlog.get_logger()

ARTIM_SECONDS = 30.0  # for a request to follow a connection, and for a connection to close (PS3.8 9.1.5)
CONNECT_SECONDS = 10.0  # for a C-MOVE destination to take a connection
STOP_SECONDS = 30.0  # for associations to end by themselves when the receiver stops
STOP_POLL_SECONDS = 0.1  # between two looks of the listener whether it is to stop
SWITCH_SECONDS = 0.0005  # Python's 5 ms are an age for the many threads here that compute for less than one
IDLE_AT_STOP_SECONDS = 1.0  # an association that is silent for so long is ended at once then
UNKNOWN_ARTIM_SECONDS = 10.0  # the same for an address from which no configured peer calls
CONNECTIONS_PER_ASSOCIATION = 2  # one place for an association, one for a connection that is none yet, or none any more

_admitting = threading.Lock()


class RequestHandler(transport.RequestHandler):
    """Makes our kind of association out of a connection."""

    def _create_association(self) -> Association:
        server = self.server
        accepted = Association(self.ae, MODE_ACCEPTOR, server.services, server.open_store, server.admit)
        accepted._server = server
        if not server.knows(self.client_address[0]):
            accepted.acse_timeout = min(accepted.acse_timeout, UNKNOWN_ARTIM_SECONDS)
        accepted.name = f"AcceptorThread@{self.client_address[0]}:{self.client_address[1]}"
        if server.encryption is None:
            accepted.set_socket(AssociationSocket(accepted, client_socket=self.request))
        else:
            accepted.set_socket(SecureAssociationSocket(accepted, server.encryption, client_socket=self.request))
        accepted.acceptor.maximum_length = self.ae.maximum_pdu_size
        accepted.acceptor.ae_title = server.ae_title
        accepted.acceptor.address_info = self.local
        accepted.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        accepted.acceptor.implementation_version_name = self.ae.implementation_version_name
        accepted.requestor.address_info = self.remote
        return accepted


class AssociationServer(transport.AssociationServer):
    """Accepts associations from a port that other receivers may accept from too."""

    def __init__(
        self,
        ae: Any,
        address: tuple[str, int],
        services: Mapping[str, Service],
        open_store: OpenStore,
        *,
        admit: Admit = lambda association: OPERATIONS,
        knows: Callable[[str], bool] = lambda address: True,
        maximum_per_host: int | None = None,
        encryption: Encryption | None = None,
        listener: socket.socket | None = None,
        load: Load | None = None,
    ) -> None:
        """Accept from the listener, or, without one, listen at the address.

        knows: whether a configured peer calls from an address. The limits count the associations of all servers of one
        `ae`. Raises OSError.
        """
        self.services = services
        self.open_store = open_store
        self.encryption = encryption
        self.knows = knows
        self._admit = admit
        self._maximum_per_host = maximum_per_host or ae.maximum_associations
        self._patience = Patience()
        self._load = load
        self._listener = listener or listen(*address)
        super().__init__(ae, address, ae.ae_title, contexts=[], request_handler=RequestHandler)

    def server_bind(self) -> None:
        """Take the listener, which is bound."""
        self.socket.close()
        self.socket: socket.socket = self._listener
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Do nothing more: the listener listens."""

    def get_request(self) -> Any:
        """Accept a connection, unless another receiver was quicker.

        Raises OSError, after a pause where no descriptor is left for it.
        """
        if self._load is not None:
            self._load.give_way()
        try:
            return self._patience.accept(super().get_request)
        except OSError as error:
            if error.errno == errno.EINVAL:  # nobody listens any more: `serve` ends, and the socket only looks ready
                time.sleep(STOP_POLL_SECONDS)
            raise

    def admit(self, association: Association) -> Collection[Operation]:
        """Say what a peer may ask for; from then on it has one of the places for associations. Raises Rejected."""
        allowed = self._admit(association)
        with _admitting:
            admitted = [one for one in self._connections() if one.admitted]
            if len(_from(association.requestor.address_info.address, admitted)) >= self._maximum_per_host:
                sentence = f"Its host has {self._maximum_per_host} associations already."
                raise Rejected(LOCAL_LIMIT_EXCEEDED, sentence)
            if len(admitted) >= self.ae.maximum_associations:
                sentence = f"There are {self.ae.maximum_associations} associations already."
                raise Rejected(LOCAL_LIMIT_EXCEEDED, sentence)
            association.admitted = True
        return allowed

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Make room for a connection; tell whether it can be taken.

        Those that have asked for nothing yet, or were refused, have places apart from those for associations, in all
        and by address. The one that has been there the longest goes: whoever has something to ask does so at once.
        """
        del request
        address = client_address[0]
        connections = self._connections()
        waiting = [one for one in connections if not one.admitted and not one.turned_away]
        if len(connections) >= CONNECTIONS_PER_ASSOCIATION * self.ae.maximum_associations:
            log.warning("connection_dropped", address=address)
            return False
        if len(own := _from(address, waiting)) >= self._maximum_per_host:
            own[0].turn_away()
        elif len(waiting) >= self.ae.maximum_associations:
            _most_crowded(waiting)[0].turn_away()
        return True

    def _connections(self) -> list[Association]:
        """All connections of the application entity that came from outside, those of longest standing first."""
        return [association for association in self.ae.active_associations if association.is_acceptor]

    def service_actions(self) -> None:
        """Tell the other receivers of the load; leave garbage, which pynetdicom collects every time, to Python."""
        if self._load is not None:
            self._load.record(len(self._connections()))

    def shutdown(self) -> None:
        """Stop listening; associations go on."""
        socketserver.BaseServer.shutdown(self)  # pynetdicom's wants to be known to the application entity
        self.socket.close()  # pynetdicom's server_close would shut it down, for the other receivers too

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin an association, which takes descriptors besides that of its connection."""
        super().process_request(request, client_address)
        self._patience.served()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; the server goes on, after a pause where no descriptor is left."""
        del request
        if self._patience.pause_over(sys.exception()):
            return
        log.exception("connection_failed", address=client_address[0])

    def _bind_defaults(self) -> None:
        """Bind nothing: the associations bind their handlers themselves."""


def _from(address: str, connections: Sequence[Association]) -> list[Association]:
    return [one for one in connections if one.requestor.address_info.address == address]


def _most_crowded(connections: Sequence[Association]) -> list[Association]:
    """Return the connections of the address that has most of them; of several such, of the first."""
    addresses = Counter(one.requestor.address_info.address for one in connections)
    return _from(addresses.most_common(1)[0][0], connections)


class Receiver:
    """All that one receiver process runs; for tests also within another process."""

    def __init__(self, settings: Settings, shared: Shared | None = None) -> None:
        """Accept from the ports that are shared with other receivers, or, without any, listen on those of the settings.

        Raises OSError if a port cannot be had, UnusableTls, UnusableIndex for a wrong database_url.
        """
        peers = Peers(settings)
        encryption = None if settings.dicom_tls_port is None else Encryption(acceptor_context(settings))
        self._database = Database(settings.index_url)
        spool = volumes.open_spool(settings, self._database)
        store = volumes.open_store(settings, self._database)
        quiet = dt.timedelta(seconds=settings.series_quiet_seconds)
        self._committer = Committer(
            spool, store, self._database, quiet, settings.duplicates, settings.maximum_revisions
        )
        self._objects = ObjectReader(
            spool,
            store,
            settings.decoded_cache_bytes,
            settings.large_object_bytes,
            temporary_dir=settings.spool_dir,  # where a large object surely finds room
        )
        self._retrieval = RetrieveService(settings, peers, self._database, self._objects)
        entity = _application_entity(settings)
        self._commitment = CommitmentService(settings, peers, entity, self._database, spool, store, self._objects)
        quota_bytes = settings.spool_quota_bytes
        self._quota = None if quota_bytes is None else SpoolQuota(spool, quota_bytes)
        storage = StorageService(spool, self._committer, settings.minimum_free_bytes, self._quota)
        services: dict[str, Service] = {
            contexts.VERIFICATION: verification.serve,
            STORAGE: storage.serve,
            contexts.STORAGE_COMMITMENT: self._commitment.serve,
            **dict.fromkeys(FIND, QueryService(settings.ae_title, self._database).find),
            **dict.fromkeys(GET, self._retrieval.get),
            **dict.fromkeys(MOVE, self._retrieval.move),
        }

        def server(
            port: int, listener: socket.socket | None, encryption: Encryption | None = None
        ) -> AssociationServer:
            return AssociationServer(
                entity,
                (settings.dicom_host, port),
                services,
                storage.open,
                admit=peers.admit,
                knows=peers.knows,
                maximum_per_host=settings.maximum_associations_per_host,
                encryption=encryption,
                listener=listener,
                load=shared.load if shared else None,
            )

        self._servers = [server(settings.dicom_port, shared.listener if shared else None)]
        if settings.dicom_tls_port is not None:
            tls_listener = shared.tls_listener if shared else None
            self._servers.append(server(settings.dicom_tls_port, tls_listener, encryption))
        self._threads = [
            LastingThread("accept", partial(one.serve_forever, STOP_POLL_SECONDS)) for one in self._servers
        ]

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._servers[0].server_address[1])

    @property
    def tls_port(self) -> int | None:
        """The port that is listened on for TLS."""
        return int(self._servers[1].server_address[1]) if len(self._servers) > 1 else None

    def start(self) -> None:
        """Begin to accept associations."""
        if self._quota is not None:
            self._quota.start()
        self._committer.start()
        self._commitment.start()
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Accept nothing more, let what runs end for some time, abort the rest; what was acknowledged is safe."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            thread.stopping.set()
            server.shutdown()
            thread.join()
        deadline = time.monotonic() + seconds
        while (running := self.associations) and time.monotonic() < deadline:
            for association in running:
                if association.idle_seconds > IDLE_AT_STOP_SECONDS:
                    association.stop()
            running[0].join(STOP_POLL_SECONDS)
        running = self.associations
        for association in running:
            association.stop()
        for association in running:
            association.join()
        self._commitment.stop()
        self._committer.stop()
        if self._quota is not None:
            self._quota.stop()
        self._retrieval.close()
        self._objects.close()
        self._database.dispose()

    @property
    def associations(self) -> list[Association]:
        """The associations that go on."""
        return [association for server in self._servers for association in server.active_associations]


def serve_receiver(
    settings: Settings, on_ready: Callable[[], None] = lambda: None, shared: Shared | None = None
) -> None:
    """Run one receiver until SIGTERM or SIGINT; `on_ready` is called once it accepts associations.

    shared: what it shares with other receivers; without it, it listens on ports of its own.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    decode_budget().resize(settings.decode_budget_bytes)
    claim = contextlib.nullcontext() if settings.database_url else data_folder.receiving(settings.data_dir)
    with stop_signal() as stop, claim:
        receiver = Receiver(settings, shared)
        gc.freeze()  # what is there by now stays; to look through it again and again would be for nothing
        receiver.start()
        log.info("receiver_listens", host=settings.dicom_host, port=receiver.port, tls_port=receiver.tls_port)
        on_ready()
        stop.poll(None)
        receiver.stop()


def _application_entity(settings: Settings) -> Any:
    entity = AE(settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_associations = settings.maximum_associations
    entity.maximum_pdu_size = settings.maximum_pdu_bytes
    entity.network_timeout = entity.dimse_timeout = settings.network_timeout_seconds
    entity.acse_timeout = min(ARTIM_SECONDS, settings.network_timeout_seconds)
    entity.connection_timeout = min(CONNECT_SECONDS, settings.network_timeout_seconds)
    return entity
