import json
import time

import pytest
from rich.console import Console

from support.gateway import running_gateway
from support.servers import free_port
from thinfilm_gateway import cli
from thinfilm_gateway.bench import hostile, ingest, retrieve
from thinfilm_gateway.bench.clients import UnknownAddress, parse_node, run_at_once
from thinfilm_gateway.bench.figures import Figures, row
from thinfilm_gateway.client.network import Node, PeerRefused
from thinfilm_gateway.config import Peer

QUIET = Console(quiet=True)


def test_a_node_is_host_port_and_perhaps_an_ae_title():
    assert parse_node("pacs:104/ARCHIVE") == Node("pacs", 104, "ARCHIVE")
    assert parse_node("10.0.0.1:11112") == Node("10.0.0.1", 11112, "ANY-SCP")
    assert parse_node("[::1]:104") == Node("::1", 104, "ANY-SCP")


@pytest.mark.parametrize("text", ["pacs", "pacs:", ":104", "pacs:dicom"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UnknownAddress, match="HOST:PORT"):
        parse_node(text)


def test_rates_are_of_the_whole_and_latencies_are_nearest_rank_percentiles():
    measured = row("NODE", "C-STORE", 2, [500_000] * 100, 2.0, [number / 1000 for number in range(1, 101)])
    assert (measured.objects_per_second, measured.megabytes_per_second) == (50.0, 25.0)
    assert (measured.latency_ms_p50, measured.latency_ms_p95, measured.latency_ms_p99) == (50.0, 95.0, 99.0)


def test_clients_start_at_the_same_moment_each_in_a_process_of_its_own():
    seconds, results = run_at_once(time.sleep, [0.5, 0.5])
    assert 0.5 <= seconds < 0.95
    assert results == [None, None]


def small(monkeypatch):
    monkeypatch.setattr(ingest, "ASSOCIATIONS", (2,))
    monkeypatch.setattr(ingest, "OBJECTS", 6)
    monkeypatch.setattr(retrieve, "ASSOCIATIONS", (2,))
    monkeypatch.setattr(retrieve, "SERIES", 2)
    monkeypatch.setattr(retrieve, "SLICES", 3)
    monkeypatch.setattr(retrieve, "LONG_SLICES", 4)
    monkeypatch.setattr(retrieve, "REQUESTS", 2)
    monkeypatch.setattr(retrieve, "CODECS", ("jpegls",))


def test_ingest_measures_a_node_that_runs_and_a_gateway_of_its_own(tmp_path, monkeypatch):
    small(monkeypatch)
    with running_gateway(tmp_path, receivers=1, local_workers=0, ae_title="OTHER") as gateway:
        figures = ingest.run(QUIET, [f"127.0.0.1:{gateway.node.port}/OTHER"])
    rows = json.loads(json.dumps(figures.to_json()))["rows"]
    assert [row["node"] for row in rows] == ["OTHER", "THINFILM"]
    for measured in rows:
        assert measured["objects"] == 6
        assert measured["bytes"] > 6 * 512 * 1024
        assert measured["objects_per_second"] > 0
    assert figures.table().row_count == 2


def test_retrieve_measures_a_node_that_runs_and_a_gateway_of_its_own(tmp_path, monkeypatch):
    small(monkeypatch)
    port = free_port()
    monkeypatch.setattr(retrieve, "DESTINATION_PORT", port)
    peers = (Peer(ae_title="THINFILM_BENCH", host="127.0.0.1", port=port),)
    with running_gateway(tmp_path, receivers=1, local_workers=0, ae_title="OTHER", peers=peers) as gateway:
        rows = retrieve.run(QUIET, [f"127.0.0.1:{gateway.node.port}/OTHER"]).rows
    of_long = [
        [f"C-GET of a slice, {case}", f"C-GET of 4, {case}", f"C-MOVE of 4, {case}"]
        for case in ("as received", "jpegls, cold", "jpegls, hot")
    ]
    assert [(row.node, row.case) for row in rows] == [
        *(("OTHER", case) for case in ("C-GET, as received", *of_long[0])),
        *(("THINFILM", case) for case in ("C-GET, as received", *of_long[1], *of_long[2])),
    ]
    assert [row.objects for row in rows] == [6, 2, 8, 8, 6, 2, 8, 8, 2, 8, 8]
    assert all(0 < row.latency_ms_p50 <= row.latency_ms_p99 for row in rows)


def test_a_node_that_does_not_know_the_destination_is_named_with_what_it_must_know(tmp_path, monkeypatch):
    small(monkeypatch)
    monkeypatch.setattr(retrieve, "DESTINATION_PORT", free_port())
    with running_gateway(tmp_path, receivers=1, local_workers=0) as gateway:
        address = f"127.0.0.1:{gateway.node.port}/{gateway.node.ae_title}"
        with pytest.raises(PeerRefused, match=r"Does it know THINFILM_BENCH at 127\.0\.0\.1:"):
            retrieve.run(QUIET, [address])


def test_hostile_measures_senders_alone_and_beside_hostile_peers(monkeypatch):
    monkeypatch.setattr(hostile, "SENDERS", 4)
    monkeypatch.setattr(hostile, "SENDING_PROCESSES", 1)
    monkeypatch.setattr(hostile, "OBJECTS_PER_SENDER", 1)
    monkeypatch.setattr(hostile, "MADE_STUDIES", 20)
    figures = hostile.run(QUIET)
    alone, beside = figures.rows
    assert (alone.case, beside.case) == ("C-STORE alone", "C-STORE beside 5 hostile peers")
    assert alone.objects == beside.objects == 4
    assert hostile.slowdown(figures.rows) == beside.seconds / alone.seconds


@pytest.mark.parametrize(("seconds", "expected"), [(20.0, 0), (20.1, 1)])
def test_hostile_fails_if_the_others_take_more_than_twice_as_long(monkeypatch, capsys, seconds, expected):
    alone, beside = (row("THINFILM", "C-STORE", 45, [1] * 450, taken, [0.1]) for taken in (10.0, seconds))
    monkeypatch.setattr(hostile, "run", lambda console: Figures("C-STORE", "wait", (alone, beside)))
    monkeypatch.setattr("sys.argv", ["thinfilm", "bench", "hostile"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0) == expected
    assert ("the senders took 2.01 x as long, more than 2 x." in capsys.readouterr().err) == bool(expected)
