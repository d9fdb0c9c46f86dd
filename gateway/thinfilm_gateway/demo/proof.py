"""What was sent, what came back, and whether the two are the same."""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.client.network import Sent


@dataclass
class Proof:
    """The account of a demo.

    stored: what the gateway has acknowledged, by SOP Instance UID; the first of each UID is what it must return.
    refused: the files that it refused with a status.
    faults: sentences about whatever is not as it must be.
    """

    stored: dict[str, DicomFile] = field(default_factory=dict)
    refused: list[Sent] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _exact: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, answers: Sequence[Sent]) -> None:
        """Take down how the gateway answered."""
        for sent in answers:
            if sent.status == 0x0000:
                self.stored.setdefault(sent.file.sop_instance_uid, sent.file)
            elif sent.status is None:
                self.faults.append(f"{sent.file.sop_instance_uid} was answered by no status.")
            else:
                self.refused.append(sent)

    def note_received(self, way: str, sop_instance_uid: str, transfer_syntax_uid: str, dataset: bytes) -> None:
        """Compare an object that came back by `way`, C-GET or C-MOVE, with what was stored."""
        file = self.stored.get(sop_instance_uid)
        digest = hashlib.sha256(dataset).hexdigest()
        with self._lock:
            if file is None:
                self.faults.append(f"{way} returned {sop_instance_uid}, which was never stored.")
            elif transfer_syntax_uid != file.transfer_syntax_uid:
                self.faults.append(f"{way} returned {sop_instance_uid} in transfer syntax {transfer_syntax_uid}.")
            elif digest != file.sha256:
                self.faults.append(f"{way} returned {sop_instance_uid} with SHA-256 {digest}, not {file.sha256}.")
            elif way in self._exact[sop_instance_uid]:
                self.faults.append(f"{way} returned {sop_instance_uid} twice.")
            else:
                self._exact[sop_instance_uid].add(way)

    def is_exact(self, file: DicomFile) -> bool:
        """Tell whether the object came back both ways with its SHA-256."""
        return self._exact[file.sop_instance_uid] == {"C-GET", "C-MOVE"}

    def series(self) -> list[list[DicomFile]]:
        """Return what was stored, a list a series."""
        groups: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
        for file in self.stored.values():
            groups[file.study_instance_uid, file.series_instance_uid].append(file)
        return list(groups.values())
