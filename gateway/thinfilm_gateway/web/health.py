"""The health page: /health for machines, / for people; counts only, never patient data."""

import html
import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway import data_folder, health
from thinfilm_gateway.accepting import Patience
from thinfilm_gateway.config import Settings
from thinfilm_gateway.counts import Tally
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index import jobs, volumes
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.volumes import KnownVolumes
from thinfilm_gateway.policy import lossless

log = structlog.get_logger()

REQUEST_SECONDS = 10.0  # for a client to send its request


@dataclass(frozen=True)
class Processes:
    """How many processes `serve` should run, and how many are alive."""

    receivers: int
    receivers_alive: int
    workers: int
    workers_alive: int


class HealthPage:
    """An HTTP server in a thread of its own."""

    def __init__(self, settings: Settings, database: Database, processes: Callable[[], Processes]) -> None:
        """Bind the port. Raises OSError if it cannot be had."""
        tally = Tally()

        def report() -> tuple[HTTPStatus, dict[str, Any]]:
            return examine(settings, database, processes(), tally)

        class Handler(_Handler):
            examine = staticmethod(report)

        self._server = _Server((settings.http_host, settings.http_port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health page", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def examine(
    settings: Settings, database: Database, processes: Processes, tally: Tally
) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return the HTTP status and the document of /health.

    `status` is "down" (503) without index or receiver, "degraded" (200) where anything is wrong, else "ok". What is
    kept can be retrieved while it is degraded, hence the 200. `warnings` says what is wrong, `reason` the first of it.
    """
    document: dict[str, Any] = {"status": "ok", "ae_title": settings.ae_title, "dicom_port": settings.dicom_port}
    document["processes"] = asdict(processes)
    try:
        with database.reading() as session:
            counts = tally.counts(session)
            due = jobs.count_due(session)
            room = data_folder.room(settings, volumes.known(session))
            warnings = health.warnings(settings, session, room)
    except SQLAlchemyError as error:
        log.warning("index_away", error=" ".join(str(error).split())[:200])
        document["free_bytes"] = data_folder.room(settings, KnownVolumes()).free_bytes
        away = HealthWarning("index_away", "The index does not answer; start its database, or mend database_url.")
        return HTTPStatus.SERVICE_UNAVAILABLE, document | _verdict("down", [away])
    document["free_bytes"] = room.free_bytes
    document |= counts.to_json() | {"jobs_due": due, "hurry": lossless.hurry(due, settings.backlog_jobs)}
    if processes.receivers_alive == 0:
        none = HealthWarning("no_receiver", "No receiver lives, and nothing is accepted; the log says why.")
        return HTTPStatus.SERVICE_UNAVAILABLE, document | _verdict("down", [none, *warnings])
    return HTTPStatus.OK, document | _verdict("degraded" if warnings else "ok", warnings)


def _verdict(status: str, warnings: Sequence[HealthWarning]) -> dict[str, Any]:
    verdict: dict[str, Any] = {"status": status, "warnings": [asdict(warning) for warning in warnings]}
    return verdict | ({"reason": warnings[0].sentence} if warnings else {})


class _Server(ThreadingHTTPServer):
    """A thread for each request; waits for descriptors where none is left."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._patience = Patience()
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        super().__init__(address, handler)

    def get_request(self) -> Any:
        """Accept a connection."""
        request = self._patience.accept(super().get_request)
        self._patience.served()
        return request


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the two pages."""

    server_version = "Thinfilm"
    sys_version = ""
    timeout = REQUEST_SECONDS
    examine: Callable[[], tuple[HTTPStatus, dict[str, Any]]]

    def do_GET(self) -> None:
        """Answer."""
        pages = {"/health": ("application/json", _as_json), "/": ("text/html; charset=utf-8", _as_html)}
        page = pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content_type, render = page
        code, document = self.examine()
        body = render(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  the name is the base class's

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Log requests at debug: health checks come every few seconds."""
        log.debug("http_request", address=self.client_address[0], request=format % args)


def _as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _as_html(document: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in _flat(document)
    )
    style = "body{font:16px sans-serif;margin:2em}th{text-align:left;padding-right:2em;font-weight:normal}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Thinfilm</title><style>{style}</style>'
        f"<h1>{html.escape(document['ae_title'])}</h1><table>{rows}</table></html>\n"
    )


def _flat(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the leaves of a document with their names, `processes.receivers` as "processes receivers".

    Warnings are their sentences.
    """
    rows: list[tuple[str, str]] = []
    for key, value in document.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name} ")
        elif isinstance(value, list):
            rows += [(name, warning["sentence"]) for warning in value]
        else:
            rows.append((name, str(value)))
    return rows
