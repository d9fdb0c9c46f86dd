import json
import time

import pytest
from rich.console import Console

from support.gateway import running_gateway
from thinfilm_gateway.bench import hostile, ingest, retrieve
from thinfilm_gateway.bench.clients import UnknownAddress, parse_node, run_at_once
from thinfilm_gateway.bench.figures import row
from thinfilm_gateway.client.network import Node

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


def test_ingest_and_retrieve_measure_a_node_that_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "ASSOCIATIONS", (2,))
    monkeypatch.setattr(ingest, "OBJECTS", 6)
    monkeypatch.setattr(retrieve, "ASSOCIATIONS", (2,))
    monkeypatch.setattr(retrieve, "SERIES", 2)
    monkeypatch.setattr(retrieve, "SLICES", 3)
    with running_gateway(tmp_path, receivers=1, local_workers=0) as gateway:
        address = f"127.0.0.1:{gateway.node.port}/{gateway.node.ae_title}"
        for command in (ingest, retrieve):
            figures = command.run(QUIET, [address])
            document = json.loads(json.dumps(figures.to_json()))
            (measured,) = document["rows"]
            assert measured["objects"] == 6
            assert measured["bytes"] > 6 * 512 * 1024
            assert measured["objects_per_second"] > 0
            assert figures.table().row_count == 1


def test_slices_of_a_cold_series_are_measured_one_by_one_and_all_together(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieve, "COLD_SLICES", 4)
    monkeypatch.setattr(retrieve, "COLD_REQUESTS", 2)
    (tmp_path / "files").mkdir()
    one, whole = retrieve._measure_cold(QUIET, tmp_path)
    assert (one.case, one.objects, whole.case, whole.objects) == (
        "one slice of a cold series", 2, "a whole cold series", 8,
    )  # fmt: skip
    assert 0 < one.latency_ms_p50 <= one.latency_ms_p99


def test_hostile_measures_senders_alone_and_beside_hostile_peers(monkeypatch):
    monkeypatch.setattr(hostile, "SENDERS", 4)
    monkeypatch.setattr(hostile, "SENDING_PROCESSES", 1)
    monkeypatch.setattr(hostile, "OBJECTS_PER_SENDER", 1)
    figures = hostile.run(QUIET)
    alone, beside = figures.rows
    assert (alone.case, beside.case) == ("C-STORE alone", "C-STORE beside 4 hostile peers")
    assert alone.objects == beside.objects == 4
