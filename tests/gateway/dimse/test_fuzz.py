"""Peers that send anything at all: the receiver answers or aborts, stays what it was, and serves the others.

THINFILM_FUZZ is how many sessions are made up (docs/operations.md has what a long run came to).
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support import dcmtk
from support.datasets import ct_series
from support.receiver import Running, receiver_process, wait_until
from support.scu import Answer, store_all
from support.upper_layer import converse, good_session, hostile_session

SESSIONS = int(os.environ.get("THINFILM_FUZZ", "60"))
WARM_UP_SESSIONS = 40
PATIENT_EVERY = 16  # of so many sessions, one leaves it to the receiver to notice that nothing more comes
GROWTH_LIMIT = 32 * 1024 * 1024
POOLS_LIMIT = 16  # connections and threads that pools make when they are wanted first, and keep
CORPUS = sorted((Path(__file__).parents[2] / "corpus" / "upper_layer").iterdir())
STORED = Answer(0x0000, "")


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("receiver")
    with receiver_process(folder, network_timeout_seconds=1.0, check_called_ae_title=True) as running:
        yield running


def process_id(receiver: Running) -> int:
    assert receiver.process is not None
    assert receiver.process.pid is not None
    return receiver.process.pid


def resident_bytes(receiver: Running) -> int:
    pages = Path(f"/proc/{process_id(receiver)}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def open_things(receiver: Running) -> tuple[int, int]:
    """Return how many descriptors and threads the receiver has."""
    folder = Path(f"/proc/{process_id(receiver)}")
    return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))


def assert_serves_well(receiver: Running, seed: int) -> None:
    """Fail unless a good client is served, and nothing half lies in the spool once all are gone."""
    assert receiver.process is not None
    assert receiver.process.is_alive()
    assert dcmtk.echoscu(receiver.port).ok
    assert store_all(receiver.port, ct_series(2, size=16, series=f"good {seed}")) == [STORED] * 2
    wait_until(lambda: not list((receiver.settings.spool_dir / "incoming").iterdir()), "no half object is left")
    assert {path.name for path in receiver.files()} == {row.spool_name for row in receiver.instances()}


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_once_was_sent_by_a_hostile_peer_is_answered_or_aborted(receiver: Running, path: Path) -> None:
    converse(receiver.port, path.read_bytes())
    assert dcmtk.echoscu(receiver.port).ok


def test_a_good_session_is_answered_message_by_message_and_released(receiver: Running) -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        answer = converse(receiver.port, good_session(random), hang_up=False)
        assert answer[0] == 0x02  # A-ASSOCIATE-AC
        assert answer[-10:] == b"\x06\0\0\0\0\x04\0\0\0\0"  # A-RELEASE-RP


def test_whatever_is_sent_is_answered_or_aborted_and_the_others_are_served(receiver: Running) -> None:
    seeds = itertools.count(1)

    def send(count: int) -> None:
        for seed in itertools.islice(seeds, count):
            session = hostile_session(np.random.default_rng(seed))
            try:
                converse(receiver.port, session, hang_up=seed % PATIENT_EVERY > 0)
            except TimeoutError:
                pytest.fail(f"The session of seed {seed} was neither answered nor ended.")

    send(WARM_UP_SESSIONS)
    assert_serves_well(receiver, 0)
    resident, (descriptors, threads) = resident_bytes(receiver), open_things(receiver)
    send(SESSIONS)
    assert_serves_well(receiver, 1)

    def is_given_back() -> bool:
        now_open, now_running = open_things(receiver)
        return now_open <= descriptors + POOLS_LIMIT and now_running <= threads + POOLS_LIMIT

    wait_until(is_given_back, "descriptors and threads are given back")
    assert resident_bytes(receiver) - resident < GROWTH_LIMIT
