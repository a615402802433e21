"""Result cache: each result is in a file of its own, whose name is a hash of everything that determines it."""

import ast
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data_sets import ROOT
from planner.schema.base import sha256_of_json, write_text


def result_key(*parts: Any) -> str:
    """Return a short hash of the parts, which must be JSON."""
    return sha256_of_json(list(parts))[:16]


@functools.cache
def code_hash(patterns: tuple[str, ...]) -> str:
    """Return a hash of the code in files of the repository, without comments and docstrings."""
    paths = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    return sha256_of_json([_without_docstrings(path.read_text(encoding="utf-8")) for path in paths])[:16]


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def read_json(path: Path) -> Any:
    """Return a file's content, or None if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_json(path: Path, data: Any) -> None:
    """Write a file whole or not at all."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def cached(path: Path, make: Callable[[], Any]) -> Any:
    """Return the content of a file, after making and writing it if it does not exist."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)
