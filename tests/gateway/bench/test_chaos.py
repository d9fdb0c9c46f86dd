"""`thinfilm bench chaos` in its short form; the long one is in docs/operations.md."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from support.datasets import ct_series, structured_report
from support.objects import write_files
from thinfilm_gateway import cli
from thinfilm_gateway.bench.chaos import damage, descriptors, kernel, restored, rotten
from thinfilm_gateway.bench.chaos import run as chaos
from thinfilm_gateway.bench.chaos.kills import kill_under_load
from thinfilm_gateway.bench.chaos.outcome import Outcome, Report
from thinfilm_gateway.bench.chaos.proof import get_all
from thinfilm_gateway.bench.chaos.remains import half_objects, remains
from thinfilm_gateway.bench.chaos.restored import Restored
from thinfilm_gateway.bench.chaos.service import ROLES
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.client.network import store

KILLS = 4
SEED = 6  # with which each role is killed once


@pytest.mark.timeout(900)  # eight starts of a gateway: minutes on a busy machine
def test_what_was_acknowledged_before_kills_comes_back_and_nothing_half_is_left(tmp_path: Path) -> None:
    outcome = kill_under_load(tmp_path, KILLS, SEED, lambda: None)
    assert outcome.wrong == ()
    assert outcome.verdict == "right"
    assert outcome.acknowledged >= KILLS
    assert dict(outcome.faults) == dict.fromkeys(ROLES, 1)


@pytest.mark.timeout(900)
def test_a_flipped_byte_is_noticed_and_healed_from_the_copy_in_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "SLICES", 2)
    monkeypatch.setattr(damage, "PLACES", ("frames", "footer"))
    outcome = damage.flip_bytes(tmp_path)
    assert outcome.wrong == ()
    assert (outcome.acknowledged, outcome.returned) == (4, 4)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", Restored)
def test_last_nights_backup_beside_what_came_since_loses_nothing_that_has_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: Restored
) -> None:
    monkeypatch.setattr(restored, "SLICES", 1)
    outcome = restored.restore_on_sqlite(tmp_path, what)
    assert outcome.wrong == ()
    assert (outcome.acknowledged, outcome.returned) == (4, 4)
    assert outcome.faults.get("sent again", 0) == (0 if what is Restored.INDEX else 2)


@pytest.mark.timeout(900)
def test_last_nights_postgresql_finds_what_was_archived_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restored, "SLICES", 1)
    outcome = restored.restore_on_postgresql(tmp_path, Restored.INDEX)
    assert outcome.wrong == ()
    assert (outcome.acknowledged, outcome.returned) == (4, 4)


@pytest.mark.timeout(900)
def test_what_is_sent_again_heals_rotten_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotten, "SLICES", 1)
    outcome = rotten.send_over_rotten_copies(tmp_path)
    assert outcome.wrong == ()
    assert (outcome.acknowledged, outcome.returned) == (2, 2)


@pytest.mark.timeout(900)
def test_what_is_packed_where_a_kernel_is_wrong_comes_back_where_it_is_right(tmp_path: Path) -> None:
    outcome = kernel.pack_with_wrong_kernel(tmp_path)
    assert outcome.wrong == ()
    assert outcome.skipped or (outcome.acknowledged, outcome.returned) == (kernel.SLICES, kernel.SLICES)


@pytest.mark.timeout(900)
def test_processes_that_can_open_no_file_for_a_while_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "OBJECTS", 1)
    outcome = descriptors.use_up_descriptors(tmp_path, SEED)
    assert outcome.wrong == ()
    assert outcome.verdict == "right"


def test_whatever_is_lost_changed_or_half_is_told(tmp_path: Path, sqlite_template: Path) -> None:
    kept, lost, changed = write_files(tmp_path / "files", [*ct_series(2, 32), structured_report()])
    with running_gateway(tmp_path, local_workers=0, receivers=1) as gateway:
        store(gateway.node, [kept, changed])
        with_other_bytes = [kept, lost, dataclasses.replace(changed, sha256="0" * 64)]
        retrieved = get_all(gateway.node, with_other_bytes)
    assert list(retrieved.missing) == [lost.sop_instance_uid]
    assert list(retrieved.changed) == [changed.sop_instance_uid]

    incoming = gateway.settings.spool_dir / "incoming" / "0123"
    incoming.write_bytes(b"half")
    assert half_objects(gateway.settings) == [f"{incoming} is left half."]
    half = gateway.settings.archive_dir / "00" / f"{'0' * 32}.1234.part"
    half.parent.mkdir()
    half.write_bytes(b"half")
    told = "\n".join(remains(gateway.settings))
    assert f"No row names {half}." in told
    assert f"Instance {kept.sop_instance_uid} is received." in told
    assert "Job 1 is waiting." in told
    (spooled,) = gateway.settings.spool_dir.rglob(f"*{kept.sha256}")
    spooled.unlink()
    assert f"A row names {spooled}, which is not there." in remains(gateway.settings)


def test_the_command_writes_table_and_json_and_fails_if_anything_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = Outcome("kill -9", {"receiver": 2, "worker": 1}, 10, 10, {"spool_file_adopted": 1})
    wrong = Outcome("disk full", {"spool filled": 1}, 10, 9, {}, ("1.2.3 is missing: it was not sent.",))
    skipped = Outcome("broker stopped and wiped", skipped="not run: redis-server is not installed")
    for outcomes, expected in (((right, skipped), 0), ((right, wrong), 1), ((skipped,), 1)):
        report = Report(7, outcomes)
        monkeypatch.setattr(chaos, "run", lambda console, kills, seed, report=report: report)
        monkeypatch.setattr("sys.argv", ["thinfilm", "bench", "chaos", "--json", str(tmp_path / "out.json")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == expected
        printed = capsys.readouterr()
        assert ("2 receiver, 1 worker" in printed.out) == (right in outcomes)
        assert ("1.2.3 is missing" in printed.err) == (wrong in outcomes)
        assert json.loads((tmp_path / "out.json").read_text())["right"] == (not expected)


def test_a_scenario_that_breaks_off_is_wrong_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: object) -> Outcome:
        raise OSError("No room is left.")

    right = Outcome("told", acknowledged=2, returned=2)
    monkeypatch.setattr(chaos, "kill_under_load", break_off)
    others = ("wipe_broker", "fill_disks", "flip_bytes", "send_over_rotten_copies", "pack_with_wrong_kernel")
    others += ("use_up_descriptors",)
    restores = ("restore_on_sqlite", "restore_on_postgresql")
    for name in (*others, *restores):
        monkeypatch.setattr(chaos, name, lambda *_: right)
    report = chaos.run(Console(quiet=True), 1, 0)
    verdicts = [outcome.verdict for outcome in report.outcomes]
    assert verdicts == ["WRONG", *["right"] * (len(others) + len(restores) * len(Restored))]
    assert report.outcomes[0].wrong == ("The scenario 'kill' broke off: No room is left.",)
