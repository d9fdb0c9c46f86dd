"""The commands of the workers, which the gateway's command line finds by their entry point."""

import contextlib
import dataclasses
import datetime as dt
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import structlog
import typer

from thinfilm_gateway import config, data_folder, installation
from thinfilm_gateway.beginning import begin
from thinfilm_gateway.index import commitments, holdings, jobs
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.privacy import make_private
from thinfilm_gateway.progress import step
from thinfilm_gateway.terminal import Terminal, complain
from thinfilm_workers.context import Context

log = structlog.get_logger()

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML file with the settings.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of spool, archive and index.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


celery = typer.Typer(help="Workers behind a broker, and what sends them round.", no_args_is_help=True)
OPTIONS_OF_CELERY = {"allow_extra_args": True, "ignore_unknown_options": True}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (worker, scrub, retry, tidy, reindex):
        app.command()(command)
    app.add_typer(celery, name="celery")


def worker(data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Compress what has been received, without a broker, until told to stop by SIGTERM or Ctrl-C."""
    from thinfilm_workers.local import run_workers

    with _context(config_file, data_dir) as context:
        installation.check(context.settings)
        run_workers(context.settings)


@celery.command("worker", context_settings=OPTIONS_OF_CELERY)
def celery_worker(
    context: typer.Context,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
    queues: Annotated[
        str, typer.Option("--queues", "-Q", metavar="A,B", help="The queues to serve.")
    ] = f"{jobs.COMPRESS_CPU},{jobs.MAINTENANCE}",
) -> None:
    """Do the jobs of the queues, one process a core unless told otherwise; further options are Celery's."""
    _run_celery(["worker", "--queues", queues, *context.args], config_file, data_dir)


@celery.command("beat", context_settings=OPTIONS_OF_CELERY)
def celery_beat(context: typer.Context, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Send what is due from time to time, once a site; further options are Celery's."""
    _run_celery(["beat", "--pidfile=", *context.args], config_file, data_dir)


def _run_celery(arguments: Sequence[str], config_file: Path | None, data_dir: Path | None) -> None:
    """Run a program of Celery on our application, which takes file and folder from the environment.

    Raises ConfigError, UnusableDataFolder, NotPrivate, UnusableCodec.
    """
    settings = begin(config_file, data_dir=data_dir)
    data_folder.require(settings.data_dir)
    make_private(settings)
    if arguments[0] == "worker":
        installation.check(settings)
    for name, path in ((config.CONFIG_FILE_VARIABLE, config_file), ("THINFILM_DATA_DIR", data_dir)):
        if path is not None:
            os.environ[name] = str(path.resolve())
    import click  # Celery's; typer may have its own

    from thinfilm_workers.app import app

    try:
        sys.exit(app.start(arguments))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def scrub(data_dir: DataDir = None, config_file: ConfigFile = None, as_json: Json = False) -> None:
    """Read back everything that is kept, heal what has another copy, quarantine the rest.

    Exit status 0 only if nothing is damaged, and nothing needs a codec or a model that is not installed.
    """
    from thinfilm_workers.jobs.scrub import scrub as run

    with _context(config_file, data_dir) as context, step(_progress_console(as_json), "scrub") as advance:
        report = run(context, advance)
    if as_json:
        print(json.dumps(dataclasses.asdict(report), indent=2))  # noqa: T201
    else:
        Terminal().print(
            f"{report.containers} containers, {report.instances} instances: {len(report.damages)} damages; "
            f"{report.recompressed} to be compressed anew, {report.dropped} spool copies dropped, "
            f"{report.released} released from quarantine, {report.quarantined} quarantined",
            soft_wrap=True,
        )
    _tell((*report.damages, *report.missing))


def retry(data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Try again what was given up, once the cause is mended: compression, and reports of storage commitment."""
    with _context(config_file, data_dir) as context, context.database.session() as session:
        count = holdings.retry_given_up(session, dt.datetime.now(dt.UTC))
        reports = commitments.retry_failed(session)
        others = jobs.retry_failed(session, (jobs.RECOMPRESS, jobs.RETIRE))
    Terminal().print(f"{count} instances wait for compression again")
    if reports:
        Terminal().print(f"{reports} reports of storage commitment are tried again")
    if others:
        Terminal().print(f"{others} jobs of lossy rules are tried again")


def tidy(data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Compare files and rows at once: enter objects that a crash left without a row, remove what belongs to nobody.

    Workers do so by themselves, about files that are older than a day. On an embedded index, stop the gateway first:
    nothing is at work then, and files of any age are looked at. The log says what was done.
    """
    from thinfilm_workers.jobs.sweep import GRACE
    from thinfilm_workers.jobs.sweep import tidy as run

    with _context(config_file, data_dir, alone=True) as context:
        run(context, GRACE if context.settings.database_url else dt.timedelta(0))
    Terminal().print("Files and rows are compared.")


def reindex(data_dir: DataDir = None, config_file: ConfigFile = None, as_json: Json = False) -> None:
    """Rebuild the index from spool and containers alone, into an empty database.

    Stop the gateway first, and move index.sqlite* aside or give an empty database_url: what is there is never
    overwritten. Exit status 0 only if everything that is kept could be entered.
    """
    from thinfilm_workers.jobs.reindex import reindex as run

    with (
        _context(config_file, data_dir, alone=True, upgrade=True) as context,
        step(_progress_console(as_json), "reindex") as advance,
    ):
        report = run(context, advance)
    if as_json:
        print(json.dumps(dataclasses.asdict(report), indent=2))  # noqa: T201
    else:
        Terminal().print(
            f"{report.instances} instances entered: {report.containers} containers, {report.spool_copies} spool copies",
            soft_wrap=True,
        )
    _tell((*report.damages, *report.missing))


@contextlib.contextmanager
def _context(
    config_file: Path | None, data_dir: Path | None, *, alone: bool = False, upgrade: bool = False
) -> Iterator[Context]:
    """Open the rooms.

    alone: keep every gateway and receiver with an embedded index away. upgrade: bring the tables to this version.
    Raises UnusableDataFolder, NotPrivate, and UnusableIndex unless the index is at this version.
    """
    settings = begin(config_file, data_dir=data_dir)
    data_folder.require(settings.data_dir)
    make_private(settings)
    with contextlib.ExitStack() as cleanup:
        if alone and not settings.database_url:
            cleanup.enter_context(data_folder.alone(settings.data_dir))
        database = Database(settings.index_url)
        cleanup.callback(database.dispose)
        if upgrade:
            database.upgrade()
        else:
            database.check()
        for complaint in database.complaints():
            log.warning("index_not_durable", reason=complaint)
        yield Context.over(settings, database)


def _progress_console(as_json: bool) -> Terminal:
    """Give what progress is shown on: not standard output where that is JSON."""
    return Terminal(stderr=as_json)


def _tell(faults: Sequence[str]) -> None:
    for fault in faults:
        complain(fault)
    if faults:
        raise typer.Exit(1)
