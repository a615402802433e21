"""Results in the cache folder, each in a file of its own that is known by everything that determines it."""

import ast
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.data_sets import ROOT
from planner.schema.base import sha256_of_json, write_text


def key_of(*parts: Any) -> str:
    """Return a short name for what is made of these, which must be JSON."""
    return sha256_of_json(list(parts))[:16]


def code_of(patterns: Iterable[str]) -> str:
    """Return a hash of the code in files of the repository; comments and docstrings do not count."""
    paths = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    return sha256_of_json([_bare(path.read_text(encoding="utf-8")) for path in paths])[:16]


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def read_json(path: Path) -> Any:
    """Return a file's content, or None if it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_json(path: Path, data: Any) -> None:
    """Write a file whole or not at all."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return what a file holds; what is not there yet is made and written."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)
