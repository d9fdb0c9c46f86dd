"""The command `thinfilm`: options in, plain functions called, tables or JSON out; any known error is one sentence."""

import functools
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from thinfilm_gateway import config, data_folder, logs
from thinfilm_gateway.background import keep_linear_algebra_on_one_thread
from thinfilm_gateway.beginning import begin
from thinfilm_gateway.privacy import keep_new_files_private, make_private
from thinfilm_gateway.terminal import Terminal, complain

app = typer.Typer(
    help="A storage-side compression gateway for DICOM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The tables of the index.", no_args_is_help=True)
bench = typer.Typer(help="Measure size, speed and memory.", no_args_is_help=True)
app.add_typer(db, name="db")
app.add_typer(bench, name="bench")

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML file with the settings.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of spool, archive and index.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures to a JSON file.")]
Against = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT[/AE_TITLE]", help="Measure a node that runs already; can be given more than once."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Only files whose path below DIR contains this; can be given more than once."),
]

LOSSLESS_ENTRANTS = "neural-fast,neural,jpegls,jpegxl,jpegxl-e9,htj2k,zstd,tomoz"

CHAOS_KILLS = 200

FAILED = 1  # exit status; 2 is a wrong command line, 130 an interrupt
INTERRUPTED = 130


class Failed(Exception):
    """The command did its work and the result is bad; the message is one sentence."""


def main() -> None:
    """Run the command line; the only place where errors become sentences."""
    keep_new_files_private()
    try:
        _add_commands_of_other_packages()
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get("THINFILM_LOG_LEVEL") == "debug":
            raise
        complain(_sentence(error))
        sys.exit(FAILED)


@functools.cache  # once a process
def _add_commands_of_other_packages() -> None:
    for entry_point in importlib.metadata.entry_points(group="thinfilm.commands"):
        entry_point.load()(app)


def _sentence(error: Exception) -> str:
    """Say in one sentence what went wrong. Our own exceptions carry their sentence."""
    package = type(error).__module__.partition(".")[0]
    if package.startswith("thinfilm_"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    if package == "sqlalchemy":
        return f"The index cannot be used: {' '.join(str(error.args[0] if error.args else error).split())}."
    return (
        f"An error that nobody foresaw: {type(error).__name__}: {error}. "
        "Set THINFILM_LOG_LEVEL=debug to see where, and report it."
    )


@app.command()
def serve(
    data_dir: DataDir = None,
    dicom_port: Annotated[int | None, typer.Option(metavar="N", help="TCP port of the DICOM services.")] = None,
    http_port: Annotated[int | None, typer.Option(metavar="N", help="TCP port of the health page.")] = None,
    ae_title: Annotated[str | None, typer.Option(metavar="T", help="Application entity title.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Run the gateway until it is told to stop by SIGTERM or Ctrl-C."""
    from thinfilm_gateway.serve import serve as run

    run(begin(config_file, data_dir=data_dir, dicom_port=dicom_port, http_port=http_port, ae_title=ae_title))


@app.command()
def demo() -> None:
    """Push real DICOM through a gateway in a temporary folder, pull it back, and compare.

    Exit status 0 only if everything came back byte for byte. With THINFILM_DATA, the files of that folder too.
    """
    from thinfilm_gateway.demo.run import run

    folder = os.environ.get("THINFILM_DATA")
    logs.configure("error")
    if not run(_console(), Path(folder) if folder else None):
        raise Failed("Not everything came back as it was sent.")


@app.command()
def compress(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.tfa", help="The container to write.")],
    codec: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this codec; a lossy one where images may be lossy.")
    ] = None,
    preset: Annotated[str, typer.Option(metavar="fast|default|max", help="How hard the codec tries.")] = "default",
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where the codec computes.")] = "cpu",
    max_error: Annotated[
        int | None, typer.Option(metavar="D", help="Lossy: no sample may be farther off than this.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(metavar="R", help="Lossy: the gentlest setting that reaches this ratio.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="P", help="Lossy: whose ceilings hold; esr-strict without.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Pack files and folders into a container, and prove it by reading it back.

    With a lossy codec, images that may be lossy become objects derived from them, below the ceiling of the profile.
    """
    keep_linear_algebra_on_one_thread()
    from thinfilm_gateway.commands import compress as command
    from thinfilm_gateway.progress import byte_step

    lossy = command.lossy_request(codec, profile, max_error, ratio, preset, device)
    sources = command.sources(paths)
    total = sum(source.path.stat().st_size for source in sources)
    with byte_step(_progress_console(as_json), f"compress {len(sources)} files", total) as advance:
        candidates = [codec] if codec and lossy is None else _usable_codecs(config.load())
        result = command.compress(sources, output, candidates, preset, device, advance, lossy)
    if as_json:
        _print_json(result.to_json())
    else:
        series = len(result.report.series)
        smaller = result.bytes_in / result.report.archive_bytes
        _console().print(
            f"{result.files_in} files in {series} series, {result.bytes_in:,} bytes in {result.report.archive_bytes:,}"
            f" ({smaller:.2f}), read back and proven: {output}"
        )
        for row in result.lossy:
            _console().print(row.sentence())
    _tell_of_faulty_kernels()


def _usable_codecs(settings: config.Settings) -> list[str]:
    """Return the lossless codecs of the settings. Of those that are there by default, what cannot be used is told."""
    from thinfilm_gateway import installation
    from thinfilm_gateway.policy import lossless

    installation.check(settings)
    obstacles = lossless.obstacles(settings.lossless_codecs)
    for sentence in obstacles.values():
        print(f"thinfilm: {sentence}", file=sys.stderr)  # noqa: T201
    return [name for name in settings.lossless_codecs if name not in obstacles]


@app.command()
def expand(
    archive: Annotated[Path, typer.Argument(metavar="OUT.tfa", help="The container.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the files.")],
    as_json: Json = False,
) -> None:
    """Write the files of a container, byte for byte."""
    from thinfilm_gateway.commands import expand as command
    from thinfilm_gateway.progress import byte_step

    with byte_step(_progress_console(as_json), f"expand {archive.name}", None) as advance:
        result = command.expand(archive, output, advance)
    if as_json:
        _print_json(result.to_json())
    else:
        _console().print(f"{result.verified} of {result.instances} files written to {output}, each with its SHA-256")
    _tell_of_faulty_kernels()
    for damage in result.damages:
        complain(damage)
    if result.damages:
        raise Failed(f"{len(result.damages)} of {result.instances} files of {archive} are damaged.")
    if result.missing:
        left = result.instances - result.verified
        raise Failed(f"{left} of {result.instances} files of {archive} were left out. {' '.join(result.missing)}")


def _tell_of_faulty_kernels() -> None:
    """Say on standard error which kernels were not used, since they did not give the known answers."""
    from thinfilm_codecs.lossless.neural import kernels

    for sentence in kernels.faults().values():
        print(f"thinfilm: {sentence}", file=sys.stderr)  # noqa: T201


@app.command()
def inspect(
    archive: Annotated[Path, typer.Argument(metavar="OUT.tfa", help="The container.")], as_json: Json = False
) -> None:
    """Show what is in a container: files, codecs, sizes, checksums."""
    from thinfilm_gateway.commands import inspect as command

    result = command.inspect(archive)
    if as_json:
        _print_json(result.to_json())
    else:
        _console().print(command.render(result))


@app.command()
def status(
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="List what came with other content under a known SOP Instance UID.")
    ] = False,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="List what lossy rules decided, and why images stay lossless.")
    ] = False,
) -> None:
    """Show what is kept, what waits, and what needs a hand."""
    from thinfilm_gateway.commands import duplicates as revisions
    from thinfilm_gateway.commands import lossy_decisions as decisions
    from thinfilm_gateway.commands import status as command

    settings = config.load(config_file, data_dir=data_dir)
    render: Callable[[Any], RenderableType] = command.render
    result: Any
    if duplicates:
        result, render = revisions.duplicates(settings), revisions.render
    elif lossy:
        result, render = decisions.lossy_decisions(settings), decisions.render
    else:
        result = command.status(settings)
    if as_json:
        _print_json(result.to_json())
    else:
        _console().print(render(result))


@db.command("upgrade")
def db_upgrade(data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Bring the tables of the index to this version."""
    from thinfilm_gateway.index.database import Database

    settings = config.load(config_file, data_dir=data_dir)
    data_folder.make(settings.data_dir)
    make_private(settings)
    Database(settings.index_url).upgrade()
    _console().print("The index is up to date.")


@db.command("check")
def db_check(data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Say whether the tables of the index are those of this version, and outlive a power cut; exit status 0 if so."""
    from thinfilm_gateway.index.database import Database

    settings = config.load(config_file, data_dir=data_dir)
    if not settings.database_url:
        data_folder.require(settings.data_dir)
    database = Database(settings.index_url)
    database.check()
    if complaints := database.complaints():
        raise Failed(" ".join(complaints))
    _console().print("The index is up to date.")


@bench.command("ingest")
def bench_ingest(against: Against = None, json_file: JsonFile = None) -> None:
    """Measure C-STORE: objects and megabytes a second, and how long a sender waits for the status."""
    from thinfilm_gateway.bench import ingest

    _bench(ingest.run(_console(), against or []), json_file)


@bench.command("retrieve")
def bench_retrieve(against: Against = None, json_file: JsonFile = None) -> None:
    """Measure C-GET: objects and megabytes a second, and how long a viewer waits for the first object."""
    from thinfilm_gateway.bench import retrieve

    _bench(retrieve.run(_console(), against or []), json_file)


@bench.command("lossless")
def bench_lossless(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DICOM files.")],
    codecs: Annotated[str, typer.Option(metavar="A,B", help="The codecs, separated by commas.")] = LOSSLESS_ENTRANTS,
    slices: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only N middle files of each series.")] = None,
    only: Only = None,
    json_file: JsonFile = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also plot size against decode speed: .png or .svg.")
    ] = None,
) -> None:
    """Measure size and speed of lossless codecs on the same frames, one core, every decode compared."""
    from thinfilm_gateway.bench.lossless import plot, run

    names = codecs.split(",")
    if plot_file:
        plot.check(plot_file, names)
    figures = run.run(_console(), folder, names, slices, only or [])
    _bench(figures, json_file)
    if plot_file:
        plot.plot(figures.summary, plot_file)
    if figures.failures:
        raise Failed(f"{len(figures.failures)} of {len(figures.rows)} measurements failed; they are named above.")


@bench.command("lossy")
def bench_lossy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of DICOM files.")],
    codecs: Annotated[
        str | None, typer.Option(metavar="A,B", help="The codecs, separated by commas; all there are otherwise.")
    ] = None,
    slices: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only N middle files of each series.")] = None,
    only: Only = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODEC=MPIXEL",
            help="Measure a slow codec on so many million samples of each series; can be given more than once.",
        ),
    ] = None,
    json_file: JsonFile = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also plot quality over rate: .png or .svg.")
    ] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Also write the tables to a Markdown file.")
    ] = None,
) -> None:
    """Measure rate, errors and speed of lossy codecs at the same rates, beside the lossy standards, on one core."""
    from thinfilm_gateway.bench.lossy import bjontegaard, entrants, limits, plot, report, run

    names = codecs.split(",") if codecs else entrants.names()
    bjontegaard.check()
    if plot_file:
        plot.check(plot_file)
    figures = run.run(_console(), folder, names, slices, only or [], limits.parse(limit or []))
    _bench(figures, json_file)
    if plot_file:
        plot.plot(figures, plot_file)
    if report_file:
        report.write(figures, report_file, plot_file)
    if figures.failures:
        raise Failed(f"{len(figures.failures)} of {len(figures.results)} measurements failed; they are named above.")


@bench.command("scaling")
def bench_scaling(json_file: JsonFile = None) -> None:
    """Measure how much faster the neural codec is on two cores than on one."""
    from thinfilm_gateway.bench import scaling

    _bench(scaling.run(_console()), json_file)


@bench.command("memory")
def bench_memory(json_file: JsonFile = None) -> None:
    """Measure the memory that compress and expand take for a series of 500 images."""
    from thinfilm_gateway.bench import memory

    _bench(memory.run(_console()), json_file)


@bench.command("large")
def bench_large(json_file: JsonFile = None) -> None:
    """Measure by how much the processes of a gateway grow while an object of 1 GiB goes in and comes out."""
    from thinfilm_gateway.bench import large_object

    _bench(large_object.run(_console()), json_file)


@bench.command("hostile")
def bench_hostile(json_file: JsonFile = None) -> None:
    """Measure C-STORE of 45 senders, alone and beside peers that stall, drip, break off and flood.

    Exit status 0 only if the senders take at most twice as long beside them.
    """
    from thinfilm_gateway.bench import hostile

    figures = hostile.run(_console())
    _bench(figures, json_file)
    if (slowdown := hostile.slowdown(figures.rows)) > hostile.MOST_SLOWDOWN:
        raise Failed(
            f"Beside hostile peers the senders took {slowdown:.2f} x as long, more than {hostile.MOST_SLOWDOWN:g} x."
        )


@bench.command("chaos")
def bench_chaos(
    kills: Annotated[int, typer.Option(metavar="N", min=0, help="How many processes are killed.")] = CHAOS_KILLS,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the random moments.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Kill, stop, fill and damage gateways under load; prove that nothing acknowledged is lost and nothing half left.

    Exit status 0 only if all that was run is right; what this machine cannot run is named.
    """
    from thinfilm_gateway.bench.chaos.run import run

    report = run(_console(), kills, seed)
    _bench(report, json_file)
    wrong = [sentence for outcome in report.outcomes for sentence in outcome.wrong]
    for sentence in wrong:
        complain(sentence)
    if not report.is_right:
        raise Failed("Not everything that was acknowledged is there, or something half was left; it is named above.")


@bench.command("index")
def bench_index(
    database_url: Annotated[
        str, typer.Option(metavar="URL", help="An empty database to fill; without it, an SQLite file of one's own.")
    ] = "",
    instances: Annotated[
        int, typer.Option(metavar="N", min=20_000, help="How many instances the large index has.")
    ] = 1_000_000,
    json_file: JsonFile = None,
) -> None:
    """Measure C-FIND and the entry of objects on a small and on a large index, made of rows without files."""
    from thinfilm_gateway.bench import index

    _bench(index.run(_console(), database_url, instances), json_file)


def _bench(result: Any, json_file: Path | None) -> None:
    _console().print(result.table())
    if json_file:
        json_file.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")


def _console() -> Console:
    """Give standard output, as wide as its tables need where it is no terminal."""
    console = Terminal()
    return console if console.is_terminal else Terminal(width=160)


def _progress_console(as_json: bool) -> Console:
    """Give what progress is shown on: not standard output where that is JSON."""
    return Terminal(stderr=True) if as_json else _console()


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2))  # noqa: T201
