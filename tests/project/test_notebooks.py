"""The notebooks: readable, and with outputs that are up to date (the slowest ones are in another file)."""

import base64
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from notebooks.build import HERE, PLOTLY, comparable, notebooks, tidied
from tests.helpers.notebook_runs import assert_fresh

NAMES = ["01_profile", "02_plan", "03_what_if", "04_execute", "05_why_not"]
LARGEST_BYTES = 10**6


def stored(name: str) -> NotebookNode:
    """Return a stored notebook."""
    notebook: NotebookNode = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    return notebook


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """Return all outputs."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("name", ["01_profile", "02_plan", "03_what_if"])
def test_stored_outputs_are_up_to_date(name: str) -> None:
    """Executed in a fresh kernel, every cell has its stored output."""
    assert_fresh(name)


def test_all_notebooks_are_tested() -> None:
    """Every notebook is listed here, and executed in one of the two files."""
    assert [path.stem for path in notebooks()] == NAMES
    sources = (Path(__file__).read_text(), (Path(__file__).parent / "test_notebooks_trained.py").read_text())
    assert all(any(f'["{name}"' in source or f', "{name}"' in source for source in sources) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_a_story(name: str) -> None:
    """A notebook has a title, 10 to 25 cells, all executed in order, and closing words."""
    notebook = stored(name)
    assert 10 <= len(notebook.cells) <= 25
    assert notebook.cells[0].source.startswith(f"# {int(name[:2])}. ")
    assert notebook.cells[-1].cell_type == "markdown" or name == NAMES[-1]
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_can_be_read_on_the_web(name: str) -> None:
    """No errors, no warnings, no paths of a machine; each figure has a PNG; the file is of a moderate size."""
    notebook = stored(name)
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "execute_result", "display_data"}
    assert all(output.name == "stdout" for output in outputs(notebook) if output.output_type == "stream")
    text = (HERE / f"{name}.ipynb").read_text()
    assert not re.search(r"/(home|root|tmp|Users|work)/|site-packages", text)
    assert len(text.encode()) < LARGEST_BYTES
    for output in outputs(notebook):
        data = output.get("data", {})
        if PLOTLY in data:
            assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert "<script" not in data.get("text/html", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_tidily(name: str) -> None:
    """Stored notebooks hold no dates and places, so that a rebuild without a change changes nothing."""
    text = (HERE / f"{name}.ipynb").read_text()
    assert nbformat.writes(tidied(stored(name))) + "\n" == text
    assert "timestamp" not in json.loads(text)["metadata"]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """A notebook's links are to files of this repository."""
    prose = "\n".join(cell.source for cell in stored(name).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        assert (HERE / target).exists(), target


def test_only_what_varies_is_left_out_of_the_comparison() -> None:
    """Seconds and versions are ignored; numbers, words and bars are compared."""

    def cell(text: str = "", figure: list[float] | None = None, tags: tuple[str, ...] = ()) -> NotebookNode:
        data = {"text/plain": text} if figure is None else {PLOTLY: {"data": [{"type": "bar", "x": figure}]}}
        made: NotebookNode = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", data=data)])
        made.metadata["tags"] = list(tags)
        return made

    expected = comparable(cell("latency 6.5 ms (exact, 2.5 s), planner 0.1.0"))
    assert expected == comparable(cell("latency 6.5 ms (exact, 13.0 s), planner 0.2.0"))
    assert expected != comparable(cell("latency 6.6 ms (exact, 2.5 s), planner 0.1.0"))
    assert comparable(cell(figure=[1.0, 2.0])) == comparable(cell(figure=[1.0, 2.0]))
    assert comparable(cell(figure=[1.0, 2.0])) != comparable(cell(figure=[1.0, 2.5]))
    assert comparable(cell("97.2 %", tags=("measured",))) == comparable(cell("96.9 %", tags=("measured",)))
    assert comparable(cell("97.2 %", tags=("measured",))) != comparable(cell("lost", tags=("measured",)))
