"""Every place in the source that removes bytes is in docs/removals.md, with its proof and the test of that."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("gateway", "workers", "codecs")
DOCUMENT = ROOT / "docs" / "removals.md"

# Functions and methods, by their last name, that remove, empty or write over files, and those of rows.
REMOVING = {
    *("unlink", "rmdir", "rmtree", "remove", "removedirs", "truncate", "ftruncate"),
    *("rename", "renames", "move", "write_text", "write_bytes", "copyfile", "copytree"),
    *("delete", "drop_container", "drop_unnamed", "discard", "sweep_temporary"),
    *("remove_resent", "set_aside", "take_back"),
    *("TemporaryDirectory", "NamedTemporaryFile"),
}
EMPTYING_MODES = re.compile(r"w|r\+")

# Programs about data of their own, which they make and throw away, and the training of models.
APART = (
    "gateway/thinfilm_gateway/bench/",
    "gateway/thinfilm_gateway/demo/",
    "codecs/thinfilm_codecs/training/",
)

# Members that leave a list or a queue in memory, the service of C-MOVE, the name of a process.
OF_OTHER_MEANING = {
    ("gateway/thinfilm_gateway/dimse/server.py", "Receiver.__init__"),
    ("gateway/thinfilm_gateway/supervisor.py", "_show_name"),
    ("gateway/thinfilm_gateway/dicom/budget.py", "DecodeBudget.taken"),
    ("gateway/thinfilm_gateway/dimse/delivery.py", "Delivery._work"),
}


def removals_in(source: str) -> set[str]:
    """Return the names of the functions and methods that hold such a call."""
    return {name for name, call in _calls(ast.parse(source), ()) if _removes(call)}


def _calls(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield ".".join(names), child
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _calls(child, (*names, child.name) if named else names)


def _removes(call: ast.Call) -> bool:
    """Tell whether a function that removes is called, or handed to another."""
    function = call.func
    handed = {argument.attr for argument in call.args if isinstance(argument, ast.Attribute)}
    if handed & (REMOVING - {"discard"}):
        return True
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name == "replace":  # that of paths and `os`; those of texts, times and dataclasses have other arguments
        of_system = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
        is_os = of_system and function.value.id == "os"
        return is_os or (isinstance(function, ast.Attribute) and len(call.args) == 1 and not call.keywords)
    if name == "open":
        modes = [*call.args, *(keyword.value for keyword in call.keywords)]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
        return any(len(text) <= 3 and EMPTYING_MODES.search(text) for text in texts) or "O_TRUNC" in ast.unparse(call)
    if name == "discard" and len(call.args) == 1:  # that of sets
        return False
    return name in REMOVING


def found() -> set[tuple[str, str]]:
    """Return (file, function) of all places in the source."""
    places = set()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            if not file.startswith(APART):
                places |= {(file, name) for name in removals_in(path.read_text(encoding="utf-8"))}
    return places - OF_OTHER_MEANING


def told() -> dict[tuple[str, str], str]:
    """Return the cell of the test by (file, function), of all rows of the document."""
    rows = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| `(?P<file>[\w/]+\.py)` `(?P<name>[\w.<>]+)` \|.*\| (?P<test>[^|]+) \|$", line):
            rows[match["file"], match["name"]] = match["test"]
    return rows


def test_every_place_that_removes_bytes_is_told_and_none_that_is_not_there():
    places, rows = found(), set(told())
    assert places - rows == set(), (
        "These are not in docs/removals.md: name the proof, and the test that tries to fool it."
    )
    assert rows - places == set(), "These are in docs/removals.md alone."


def test_every_test_that_is_named_there_is_there():
    for place, cell in told().items():
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", cell)
        assert named, f"{place} names no test."
        for file, test in named:
            assert f"def {test}" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {test}."


@pytest.mark.parametrize(
    "call",
    [
        "path.unlink()",
        "os.unlink(path)",
        "shutil.rmtree(folder)",
        "context.store.delete(key)",
        "context.spool.remove(name)",
        "session.execute(delete(Instance))",
        "part.rename(target)",
        "os.replace(part, target)",
        "part.replace(target)",
        "file.truncate()",
        "os.ftruncate(number, 0)",
        "path.open('wb')",
        "open(path, mode='r+b')",
        "os.open(path, os.O_WRONLY | os.O_TRUNC)",
        "path.write_bytes(data)",
        "self._let_go(self._spool.remove, name)",
    ],
)
def test_a_new_place_would_be_found(call: str):
    assert removals_in(f"class Keeper:\n    def keep(self):\n        if True:\n            {call}\n") == {"Keeper.keep"}


@pytest.mark.parametrize("call", ["text.replace('a', 'b')", "time.replace(tzinfo=None)", "names.discard(1)", "open(p)"])
def test_what_removes_nothing_is_not_taken_for_it(call: str):
    assert removals_in(f"def read():\n    {call}\n") == set()
