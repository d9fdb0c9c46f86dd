"""The terminal: what comes from outside cannot steer it, in the log and in what commands say."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.table import Table
from rich.text import Text

from thinfilm_gateway.terminal import Terminal, complain, printable

EVIL = "\x1b[2J\x1b]0;owned\x07EVIL\r\n2026-12-01 [info] all_is_well\x9b31m\x7f\u202eLIVE\u2028"
LOGS = f"""
import logging, structlog
from thinfilm_gateway import logs
logs.configure("info")
log, evil = structlog.get_logger(), {EVIL!r}
log.warning("association_rejected", peer=evil, uids=[evil], named={{evil: evil}})
log.warning(evil)
logging.getLogger("another").error("it said %s", evil)
try:
    raise ValueError(evil)
except ValueError:
    log.exception("service_failed", reason=evil)
    logging.getLogger("another").exception("failed")
"""


def is_harmless(text: str) -> bool:
    """Whether a text holds nothing that steers a terminal, but for ends of lines, tabs, and colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def on_a_terminal(script: str) -> str:
    """Run a script whose standard error is a terminal; return what it was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return shown.decode("utf-8")


def test_a_log_on_a_terminal_writes_out_what_would_steer_it() -> None:
    shown = on_a_terminal(LOGS)
    assert shown.count("EVIL") >= 9
    assert "association_rejected" in shown
    assert "ValueError" in shown
    assert is_harmless(shown)


@given(st.text(st.characters(max_codepoint=0x2100)), st.booleans())
def test_text_without_control_characters_stays_and_they_are_written_out(text: str, lines: bool) -> None:
    plain = printable(text, lines=lines)
    controls = {*map(chr, (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F)))} - (
        set("\n\t") if lines else set()
    )
    assert not controls & set(plain)
    if text.isprintable():
        assert plain == text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_command_shows_text_of_others_without_its_control_characters(is_terminal: bool) -> None:
    table = Table("title", "said")
    table.add_row("A", EVIL)
    shown = io.StringIO()
    console = Terminal(file=shown, force_terminal=is_terminal, width=200)
    console.print(Group(table, Text(EVIL), Text("red", style="red")))
    console.print(EVIL, markup=False)
    assert is_harmless(shown.getvalue())
    assert "\\x1b]0;owned" in shown.getvalue()
    assert ("\x1b[31mred" in shown.getvalue()) == is_terminal


def test_a_complaint_shows_text_of_others_without_its_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"The file {EVIL} is none.")
    assert is_harmless(capsys.readouterr().err)
