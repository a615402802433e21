"""The structure of the package: imports point one way, without cycles, and files stay short."""

import ast
from pathlib import Path

import networkx as nx
import pytest

from tests.helpers.common import ROOT

PACKAGE = ROOT / "planner"

# Lower layers first; rooms of one layer do not import each other.
LAYERS = [
    {"version", "arrays", "file_formats", "units"},
    {"errors"},
    {"files"},
    {"image_files", "array_files", "sample_files"},
    {"schema"},
    {"library", "spectrograms"},
    {"workers"},
    {"rules"},
    {"network"},
    {"profiler"},
    {"solver"},
    {"executor"},
    {"runtime"},
    {"whatif", "report"},
    {"api"},
    {"cli"},
]
LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}
# Within the solver likewise; files directly in it are rooms of their own.
SOLVER_LAYERS = [
    {"problem"},
    {"submodels"},
    {"exact", "large", "baselines", "accuracy_bound", "floor_levels"},
    {"search", "second_stage", "options"},
    {"optimise"},
    {"plan", "infeasible"},
    {"solve_at_floors"},
    {"keep_drop"},
    {"drop_not_kept"},
    {"solve"},
]
SOLVER_LEVEL = {name: i for i, layer in enumerate(SOLVER_LAYERS) for name in layer}
# Modules whose room must work where torch is not installed.
WITHOUT_TORCH = sorted({"solver", "whatif", "rules", "schema", "library", "report", "errors", "units", "api"})


def module_name(path: Path) -> str:
    """Return "planner.schema.fleet" for its file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (submodules & set(MODULES)) or {node.module}
    return {name for name in found if name in MODULES}


def room(module: str, depth: int = 1) -> str:
    """Return a module's room: "schema" for planner.schema.fleet, at depth 2 "exact" for planner.solver.exact.master."""
    parts = module.split(".")
    return parts[depth] if len(parts) > depth else ""


def test_arrows_point_one_way() -> None:
    """No room imports one that lies above or beside it."""
    upward = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imports(path)
        if room(name) and room(other) and room(name) != room(other) and LEVEL[room(other)] >= LEVEL[room(name)]
    ]
    assert upward == []


def test_arrows_point_one_way_within_the_solver() -> None:
    """No room of the solver imports one that lies above or beside it."""
    upward = []
    for name, path in MODULES.items():
        if room(name) != "solver" or name == "planner.solver":
            continue
        own = room(name, 2)
        others = {room(other, 2) for other in imports(path) if other.startswith("planner.solver.")} - {own}
        upward += [f"{name} imports {other}" for other in others if SOLVER_LEVEL[other] >= SOLVER_LEVEL[own]]
    assert upward == []


def test_every_room_has_a_layer() -> None:
    """A new room must be given its layer."""
    assert {room(name) for name in MODULES} - {""} <= set(LEVEL)
    assert {room(name, 2) for name in MODULES if name.startswith("planner.solver.")} <= set(SOLVER_LEVEL)


def test_no_circle_of_imports() -> None:
    """Imports between modules have no cycle."""
    graph = nx.DiGraph()
    for name, path in MODULES.items():
        # A package's own modules are imported by its __init__, which they may not lean on.
        graph.add_edges_from((name, other) for other in imports(path) if other != name)
    assert list(nx.simple_cycles(graph)) == []


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_planning_knows_no_torch(name: str) -> None:
    """Planning imports neither torch nor fvcore."""
    for path in [p for module, p in MODULES.items() if room(module) == name]:
        tree = ast.parse(path.read_text())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not {n.split(".")[0] for n in names} & {"torch", "fvcore", "safetensors"}, path


def test_files_stay_readable() -> None:
    """No file of the package is longer than 350 lines."""
    assert {name: n for name, p in MODULES.items() if (n := len(p.read_text().splitlines())) > 350} == {}
