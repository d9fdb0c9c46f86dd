"""Other content under a known SOP Instance UID, over the network: what the sender hears, what is found and returned."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.datasets import CT_IMAGE, EXPLICIT_LITTLE, EncodedDataSet, ct_series, finish, instance, patient
from support.query_retrieve import find, get, identifier
from support.receiver import Running, running_receiver, wait_until
from support.scu import Answer, storage_user, store_all
from thinfilm_gateway import cli
from thinfilm_gateway.dimse import status

CT = ct_series(1)[0]
CHANGED = CT._replace(dataset=CT.dataset[:-2] + b"\x12\x34")
OTHER_STUDY = patient("Roe^Rick", "T-9", study="other")
ELSEWHERE = finish({**instance(CT_IMAGE, "CT", who=OTHER_STUDY), "SOPInstanceUID": CT.sop_instance_uid})
STORED = Answer(status.SUCCESS, "")
REJECTED = Answer(
    status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "Other content is kept under this SOP Instance UID already."
)


@pytest.fixture
def run(tmp_path: Path, database_url: str) -> Iterator[Callable[..., Any]]:
    """Run a receiver on either database."""
    return lambda **settings: running_receiver(tmp_path, database_url=database_url, **settings)


def returned(receiver: Running) -> list[bytes]:
    """Return what C-GET gives for the UID that all the objects share."""
    keys = identifier("IMAGE", SOPInstanceUID=CT.sop_instance_uid)
    operation = get(receiver.port, keys, [(CT_IMAGE, [EXPLICIT_LITTLE])])
    assert operation.status == status.SUCCESS
    return [received.dataset for received in operation.received]


def found_patients(receiver: Running) -> list[str]:
    return [str(match.PatientID) for match in find(receiver.port, identifier("STUDY", PatientID="")).matches]


@pytest.mark.parametrize("other", [CHANGED, ELSEWHERE], ids=["other content", "another study"])
@pytest.mark.parametrize("policy", ["keep-first", "version", "reject"])
def test_each_policy_answers_serves_and_keeps_as_it_says(
    run: Callable[..., Any], policy: str, other: EncodedDataSet
) -> None:
    with run(duplicates=policy) as receiver:
        assert store_all(receiver.port, [CT]) == [STORED]
        assert store_all(receiver.port, [other, other, CT]) == (
            [REJECTED, REJECTED, STORED] if policy == "reject" else [STORED] * 3
        )
        served = other if policy == "version" else CT
        assert returned(receiver) == [served.dataset]
        assert found_patients(receiver) == ["T-9" if served is ELSEWHERE else "T-001"]
        kept = {receiver.dataset(row) for row in receiver.instances()}
        assert kept == ({CT.dataset} if policy == "reject" else {CT.dataset, other.dataset})
        wait_until(lambda: len(receiver.files()) == len(kept), "nothing else lies in the spool")


@pytest.mark.parametrize("policy", ["keep-first", "version", "reject"])
def test_of_associations_that_send_other_contents_at_once_nothing_acknowledged_is_lost(
    run: Callable[..., Any], policy: str
) -> None:
    senders = 4
    contents = [
        [CT._replace(dataset=CT.dataset[:-2] + bytes((sender, number))) for number in range(6)]
        for sender in range(senders)
    ]
    acknowledged: list[bytes] = []
    begin = threading.Barrier(senders)

    def send(own: list[EncodedDataSet]) -> None:
        with storage_user(receiver.port, own) as user:
            begin.wait(30)
            acknowledged.extend(one.dataset for one in own if user.store(one) == STORED)

    with run(duplicates=policy) as receiver:
        threads = [threading.Thread(target=send, args=(own,)) for own in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        rows = receiver.instances()
        assert sorted(receiver.dataset(row) for row in rows) == sorted(acknowledged)
        assert len(rows) == (1 if policy == "reject" else 6 * senders)
        (current,) = [row for row in rows if row.current]
        assert current.revision == (len(rows) if policy == "version" else 1)
        assert returned(receiver) == [receiver.dataset(current)]
        wait_until(lambda: len(receiver.files()) == len(rows), "nothing else lies in the spool")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_line_lists_duplicates(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def listing(*options: str) -> str:
        done = CliRunner().invoke(cli.app, ["status", "--duplicates", *options])
        assert done.exit_code == 0, done.output
        return done.output

    with run(duplicates="version") as receiver:
        for name, value in receiver.settings.to_environment().items():
            monkeypatch.setenv(name, value)
        assert "no duplicates" in listing()
        store_all(receiver.port, [CT, CHANGED, ELSEWHERE])
        document = json.loads(listing("--json"))
        assert [(one["revision"], one["current"]) for one in document["revisions"]] == [
            (1, False),
            (2, False),
            (3, True),
        ]
        assert [one["kind"] for one in document["events"]] == ["relational_mismatch", "content_conflict"]
        table = listing()
        assert "STORE-USER" in table
        assert CT.sop_instance_uid in table
        assert "Doe" not in table


def test_more_contents_than_are_kept_under_one_uid_are_refused_and_what_is_kept_comes_again(
    run: Callable[..., Any],
) -> None:
    surplus = Answer(
        status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "Too many contents are kept under this SOP Instance UID."
    )
    with run(maximum_revisions=2) as receiver:
        answers = store_all(receiver.port, [CT, CHANGED, ELSEWHERE, CHANGED, CT])
        assert answers == [STORED, STORED, surplus, STORED, STORED]
        assert {receiver.dataset(row) for row in receiver.instances()} == {CT.dataset, CHANGED.dataset}
        assert returned(receiver) == [CT.dataset]
        wait_until(lambda: len(receiver.files()) == 2, "nothing else lies in the spool")
