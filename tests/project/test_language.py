"""Language of the package: docstrings are sentences or noun phrases, and messages speak of settings, not of flags."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.helpers.common import ROOT

FILES = sorted((ROOT / "planner").rglob("*.py"))
# Fragments and riddles begin so; "What-if" does not count.
FRAGMENT = re.compile(r"(What|Who|Whom|How|Where|Whether|As|If|Of)(?![\w-])")
FLAG = re.compile(r"(?<![\w-])--[a-z]")
# Command lines are right where commands are described, written or parsed.
SPEAK_OF_COMMANDS = {
    "planner/file_formats.py": "says which command reads and writes a file",
    "planner/network/checkpoint.py": "names a whole command to call",
    "planner/profiler/device/probe_script.py": "is a command itself",
    "planner/report/reproduce.py": "writes the commands that make a plan again",
    "planner/runtime/device/__main__.py": "is a command itself",
    "planner/runtime/onnx_folder.py": "writes the command that starts a worker",
    "planner/runtime/c/worker_files.py": "writes the command that starts a worker",
    "planner/runtime/board_script.py": "runs the worker's command",
    "planner/runtime/rehearsal/crew.py": "runs the worker's command",
    "planner/runtime/rehearsal/namespaces.py": "runs other programs",
}


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def attribute_docstrings(node: ast.ClassDef | ast.Module) -> Iterator[ast.Constant]:
    """Yield the strings beneath the attributes of a class or module, which describe them."""
    for assignment, text in pairwise(node.body):
        if not (isinstance(assignment, (ast.Assign, ast.AnnAssign)) and isinstance(text, ast.Expr)):
            continue
        if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            yield text.value


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each docstring with its line: of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef)):
            yield from ((text.lineno, str(text.value)) for text in attribute_docstrings(node))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_are_noun_phrases_or_sentences(path: Path) -> None:
    """A docstring begins with the thing itself or with a verb."""
    assert [f"{line}: {text[:60]}" for line, text in docstrings(parsed(path)) if FRAGMENT.match(text)] == []


def other_strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each string that is no docstring, parts of f-strings included, with its line."""
    statements = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in statements:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if "cli" not in path.parts and path.relative_to(ROOT).as_posix() not in SPEAK_OF_COMMANDS],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_library_does_not_speak_of_flags(path: Path) -> None:
    """Messages name settings, which the command line shows as flags."""
    assert [f"{line}: {text}" for line, text in other_strings(parsed(path)) if FLAG.search(text)] == []
