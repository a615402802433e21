"""One name for one thing: no public top-level name of the package is defined in two files."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.common import ROOT

# Names that stand in several files because they are the same operation at another level.
SAME_THING = {
    "check": "the command, and the check of a plan that it prints",
    "deploy": "the command, and the function that it calls for each board",
    "diff": "the command, and the function of `import planner`",
    "main": "entry point of a program: `planner`, and the script that runs alone on a device",
    "next_best": "the function of `import planner`, and the analysis that it calls",
    "open_session": "the runtime's, and its copy in the script that runs alone on a device, which a test compares",
    "pareto": "the command, the function of `import planner`, and the analysis that both call",
    "rehearse": "the command, and the function that it calls",
    "solve": "the command, the function of `import planner`, and the solver that both call",
    "what_if": "the command, and the function of `import planner`",
}


def top_level_names(path: Path) -> Iterator[str]:
    """Yield the names of the functions, classes and variables that a file defines."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def files_of_names() -> dict[str, list[str]]:
    """Return the files that define each public name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "planner").rglob("*.py")):
        for name in set(top_level_names(path)):
            if not name.startswith("_"):
                found[name].append(path.relative_to(ROOT).as_posix())
    return found


def test_a_public_name_is_defined_once() -> None:
    """Two files may define the same name only for the same operation, with a reason."""
    several = {name: files for name, files in files_of_names().items() if len(files) > 1}
    assert {name: files for name, files in several.items() if name not in SAME_THING} == {}


def test_the_exceptions_are_needed() -> None:
    """Every exception still stands in several files."""
    found = files_of_names()
    assert [name for name in SAME_THING if len(found[name]) < 2] == []
