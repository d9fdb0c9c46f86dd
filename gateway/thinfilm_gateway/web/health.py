"""The health page: /health for machines, / for people; counts only, never patient data."""

import datetime as dt
import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway import data_folder, health
from thinfilm_gateway.config import Settings
from thinfilm_gateway.counts import Tally
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index import heartbeats, jobs, volumes
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.volumes import KnownVolumes
from thinfilm_gateway.policy import lossless

log = structlog.get_logger()

INDEX_AWAY = HealthWarning("index_away", "The index does not answer; start its database, or mend database_url.")
NO_RECEIVER = HealthWarning("no_receiver", "No receiver lives, and nothing is accepted; the log says why.")


@dataclass(frozen=True)
class Report:
    """The health at one moment: the status code of HTTP, and the document of /health."""

    code: HTTPStatus
    document: dict[str, Any]


def examine(settings: Settings, database: Database, receivers_alive: Sequence[int], tally: Tally) -> Report:
    """Look at everything.

    `status` is "down" (503) without index or receiver, "degraded" (200) where anything is wrong, else "ok". What is
    kept can be retrieved while it is degraded, hence the 200. `warnings` says what is wrong, `reason` the first of it.
    receivers_alive: one number a receiver, 1 while it lives, else 0.
    """
    document: dict[str, Any] = {"status": "ok", "ae_title": settings.ae_title, "dicom_port": settings.dicom_port}
    processes = {"receivers": len(receivers_alive), "receivers_alive": sum(receivers_alive)}
    try:
        with database.reading() as session:
            counts = tally.counts(session)
            due = jobs.count_due(session)
            workers = heartbeats.workers(heartbeats.living(session, dt.datetime.now(dt.UTC)))
            room = data_folder.room(settings, volumes.known(session))
            warnings = health.warnings(settings, session, room)
    except SQLAlchemyError as error:
        log.warning("index_away", error=" ".join(str(error).split())[:200])
        document |= {"processes": processes, "free_bytes": data_folder.room(settings, KnownVolumes()).free_bytes}
        return Report(HTTPStatus.SERVICE_UNAVAILABLE, document | _verdict("down", [INDEX_AWAY]))
    document |= {"processes": processes | {"workers_alive": len(workers)}, "free_bytes": room.free_bytes}
    document |= counts.to_json() | {"jobs_due": due, "hurry": lossless.hurry(due, settings.backlog_jobs)}
    if not any(receivers_alive):
        return Report(HTTPStatus.SERVICE_UNAVAILABLE, document | _verdict("down", [NO_RECEIVER, *warnings]))
    return Report(HTTPStatus.OK, document | _verdict("degraded" if warnings else "ok", warnings))


def as_json(report: Report) -> str:
    """Return the document for machines."""
    return json.dumps(report.document, indent=2) + "\n"


def as_html(report: Report) -> str:
    """Return the same for people."""
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in _flat(report.document)
    )
    style = "body{font:16px sans-serif;margin:2em}th{text-align:left;padding-right:2em;font-weight:normal}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Thinfilm</title><style>{style}</style>'
        f"<h1>{html.escape(report.document['ae_title'])}</h1><table>{rows}</table></html>\n"
    )


def _verdict(status: str, warnings: Sequence[HealthWarning]) -> dict[str, Any]:
    verdict: dict[str, Any] = {"status": status, "warnings": [asdict(warning) for warning in warnings]}
    return verdict | ({"reason": warnings[0].sentence} if warnings else {})


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
