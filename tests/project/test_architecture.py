"""The structure of the package: arrows point one way, there is no circle, files stay readable."""

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "planner"

# Lower layers first; parts of one layer do not know each other.
LAYERS = [
    {"errors", "version"},
    {"schema"},
    {"shipped", "workers"},
    {"floor", "links", "demands"},
    {"cost"},
    {"predict"},
    {"check"},
    {"moves"},
    {"network"},
    {"solver", "profiler", "executor", "runtime"},
    {"whatif", "report"},
    {"planned"},
    {"terminal", "goals", "options"},
    {"cli"},
]
LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}


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


def part(module: str) -> str:
    """Return "schema" for planner.schema.fleet."""
    return module.split(".")[1] if "." in module else ""


def test_arrows_point_one_way() -> None:
    """No part imports one above it or beside it."""
    upward = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imports(path)
        if part(name) and part(other) and part(name) != part(other) and LEVEL[part(other)] >= LEVEL[part(name)]
    ]
    assert upward == []


def test_every_part_has_a_layer() -> None:
    """A new part has to be given its place."""
    assert {part(name) for name in MODULES} - {""} <= set(LEVEL)


def test_no_circle_of_imports() -> None:
    """Modules can be read one after the other."""
    graph = nx.DiGraph()
    for name, path in MODULES.items():
        # A package's own modules are imported by its __init__, which they may not lean on.
        graph.add_edges_from((name, other) for other in imports(path) if other != name)
    assert list(nx.simple_cycles(graph)) == []


@pytest.mark.parametrize(
    "name", ["solver", "schema", "cost", "predict", "check", "floor", "shipped", "report", "errors"]
)
def test_planning_knows_no_torch(name: str) -> None:
    """What a solve needs imports neither torch nor fvcore."""
    for path in [p for module, p in MODULES.items() if part(module) == name]:
        tree = ast.parse(path.read_text())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not {n.split(".")[0] for n in names} & {"torch", "fvcore", "safetensors"}, path


def test_files_stay_readable() -> None:
    """No file of the package is longer than 350 lines."""
    assert {name: n for name, p in MODULES.items() if (n := len(p.read_text().splitlines())) > 350} == {}
