"""The notebooks, executed and stored with their outputs: `make notebooks`, or `python -m notebooks.build 02_plan`.

Each runs in a fresh kernel in this folder, with the planner of this tree. A plotly figure is stored as its data
and as a PNG, which is what viewers on the web show. An output that says the same as the stored one (see
`comparable`) is left as it is stored: a rebuild without a change changes no file.
"""

import argparse
import base64
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from planner.schema.base import write_text

HERE = Path(__file__).parent
PLOTLY = "application/vnd.plotly.v1+json"
TIMEOUT_S = 300
# A cell with this tag trains: from machine to machine its numbers differ in their last digits.
MEASURED = "measured"

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What differs from run to run: how long something took, and the versions that it took it with.
_VARIES = (
    (re.compile(r"\d+(\.\d+)? s\b"), "# s"),
    (re.compile(r"\b(planner|ortools) \d+(\.\d+)+"), r"\1 #"),
)
# Names that pandas draws by lot for styled tables, and where an object lies in memory.
_DRAWN_BY_LOT, _ADDRESS = re.compile(r"\bT_[0-9a-f]{5}(?=_|\b)"), re.compile(r" at 0x[0-9a-f]+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
_WIDTH, _HEIGHT, _SCALE = 900, 450, 1.5

Draw = Callable[[dict[str, Any]], bytes]


def notebooks() -> list[Path]:
    """Return the notebooks in the order of their numbers."""
    return sorted(HERE.glob("[0-9]*.ipynb"))


def execute(path: Path) -> NotebookNode:
    """Return a notebook as it comes out of a fresh kernel, tidied; the file stays as it is.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as settings:
        environment = os.environ | {
            "PYTHONPATH": str(HERE.parent),
            "IPYTHONDIR": settings,
            # The figure's data alone, without a copy of plotly.js.
            "PLOTLY_RENDERER": "plotly_mimetype",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(HERE)}},
            # Through files of this user: what goes through ports, others on the machine can read.
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{settings}/kernel"}}),
        )
        client.execute(env=environment)
    return tidied(notebook)


def tidied(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook without what says when, where and by which version it was made."""
    tidy = nbformat.v4.new_notebook(metadata=_METADATA)
    for i, cell in enumerate(notebook.cells, start=1):
        tags = {"tags": cell.metadata.tags} if cell.metadata.get("tags") else {}
        if cell.cell_type == "markdown":
            new = nbformat.v4.new_markdown_cell(cell.source, metadata=tags)
        else:
            outputs = [_tidied_output(output, f"T_{i:02d}{k}") for k, output in enumerate(cell.outputs)]
            count = cell.execution_count
            new = nbformat.v4.new_code_cell(cell.source, metadata=tags, outputs=outputs, execution_count=count)
        new.id = f"cell-{i:02d}"
        tidy.cells.append(new)
    return tidy


def comparable(cell: NotebookNode) -> list[str]:
    """Return what a cell's outputs say, without what differs from run to run.

    Of times in seconds and of versions the numbers are left out; of cells that train, all numbers.
    Streams and tables are compared as text, figures by the data that they draw.
    """
    said = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if PLOTLY in data:
            text = json.dumps([{"type": trace.get("type"), **_drawn(trace)} for trace in data[PLOTLY]["data"]])
        else:
            text = output.get("text") or data.get("text/html") or data.get("text/plain", "")
        for pattern, replacement in _VARIES:
            text = pattern.sub(replacement, text)
        said.append(_NUMBER.sub("#", text) if MEASURED in cell.metadata.get("tags", []) else text)
    return said


def build(path: Path, draw: Draw) -> None:
    """Execute a notebook and write it with its outputs, whole or not at all."""
    new, stored = execute(path), tidied(nbformat.read(path, as_version=4))
    before = {cell.source: cell for cell in stored.cells if cell.cell_type == "code"}
    for cell in new.cells:
        if cell.cell_type != "code":
            continue
        old = before.get(cell.source)
        if old is not None and comparable(old) == comparable(cell) and all(map(_has_picture, old.outputs)):
            cell.outputs = old.outputs
        for output in cell.outputs:
            if not _has_picture(output):
                output.data["image/png"] = base64.b64encode(draw(output.data[PLOTLY])).decode()
    write_text(path, nbformat.writes(new) + "\n")


@contextmanager
def drawing() -> Iterator[Draw]:
    """Lend a function that makes a PNG of a plotly figure, in headless Chromium."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    names = (os.environ.get("CHROMIUM") or "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"pictures need a browser: one of {', '.join(names)} must be on the PATH, or be $CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_content("<!doctype html><div id='figure'></div>")
        page.add_script_tag(content=get_plotlyjs())

        def draw(figure: dict[str, Any]) -> bytes:
            layout = figure["layout"]
            size = {"width": layout.get("width") or _WIDTH, "height": layout.get("height") or _HEIGHT}
            url = page.evaluate(
                """async ([figure, options]) => {
                    await Plotly.newPlot("figure", figure.data, figure.layout);
                    return await Plotly.toImage("figure", options);
                }""",
                [figure, {"format": "png", "scale": _SCALE, **size}],
            )
            return base64.b64decode(url.partition(",")[2])

        yield draw
        browser.close()


def _tidied_output(output: NotebookNode, name: str) -> NotebookNode:
    """Return an output without what differs from run to run; a styled table gets a name of its own."""
    if output.output_type == "stream":
        return nbformat.v4.new_output("stream", name=output.name, text=output.text)
    data = dict(output.data)
    if PLOTLY in data:
        figure = data[PLOTLY]
        data[PLOTLY] = {"data": figure["data"], "layout": figure["layout"]}
        data = {kind: data[kind] for kind in (PLOTLY, "image/png") if kind in data}
    if "text/html" in data:
        data["text/html"] = _DRAWN_BY_LOT.sub(name, data["text/html"])
    if "text/plain" in data:
        data["text/plain"] = _ADDRESS.sub("", data["text/plain"])
    more = {"execution_count": output.execution_count} if output.output_type == "execute_result" else {}
    return nbformat.v4.new_output(output.output_type, data=data, **more)


def _has_picture(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return PLOTLY not in data or "image/png" in data


def _drawn(trace: dict[str, Any]) -> dict[str, Any]:
    """Return what a trace draws: positions, values and texts, with packed arrays as lists."""
    keys = ("x", "y", "z", "base", "width", "text", "customdata", "name", "orientation")
    return {key: _unpacked(trace[key]) for key in keys if key in trace}


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "bdata" in value:
        array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        shape = [int(n) for n in str(value["shape"]).split(",")] if "shape" in value else [-1]
        return array.reshape(shape).tolist()
    return value


def main() -> None:
    """Build the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="such as 02_plan; all unless given")
    names = parser.parse_args().names
    chosen = [path for path in notebooks() if not names or path.stem in names]
    if missing := set(names) - {path.stem for path in chosen}:
        sys.exit(f"no such notebook: {', '.join(sorted(missing))}.")
    with drawing() as draw:
        for path in chosen:
            print(path.name, flush=True)
            build(path, draw)


if __name__ == "__main__":
    main()
