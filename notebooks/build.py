"""Execute the notebooks and store their outputs: `make notebooks`, or `python -m notebooks.build 02_plan`.

Each notebook runs in a fresh kernel in this folder, with the planner of this tree. A plotly figure is stored as its
data and as a PNG, since viewers on the web show only the latter. An output that equals the stored one (see
`comparable`) is left as it is stored, so that a rebuild without a change changes no file.
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
# Of a cell [s]: what hangs ends; a busy machine may take many times as long as an idle one.
TIMEOUT_S = 800
# Tag of cells that train: their numbers differ in the last digits from machine to machine.
MEASURED = "measured"

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Texts that differ from run to run: durations and versions.
_VARYING = (
    (re.compile(r"\d+(\.\d+)? s\b"), "# s"),
    (re.compile(r"\b(planner|ortools) \d+(\.\d+)+"), r"\1 #"),
)
# Random names that pandas gives to styled tables, and addresses of objects in memory.
_RANDOM_NAME, _ADDRESS = re.compile(r"\bT_[0-9a-f]{5}(?=_|\b)"), re.compile(r" at 0x[0-9a-f]+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
_WIDTH, _HEIGHT, _SCALE = 900, 450, 1.5

Draw = Callable[[dict[str, Any]], bytes]


def notebooks() -> list[Path]:
    """Return the notebooks in the order of their numbers."""
    return sorted(HERE.glob("[0-9]*.ipynb"))


def execute(path: Path) -> NotebookNode:
    """Execute a notebook in a fresh kernel and return it tidied; the file stays as it is.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as settings:
        environment = os.environ | {
            "PYTHONPATH": str(HERE.parent),
            "IPYTHONDIR": settings,
            # Only the figure's data is stored: a copy of plotly.js takes megabytes.
            "PLOTLY_RENDERER": "plotly_mimetype",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(HERE)}},
            # Messages go through files of this user: others on the machine could read ports.
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{settings}/kernel"}}),
        )
        client.execute(env=environment)
    return tidied(notebook)


def tidied(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook without traces of when, where and by which version it was made."""
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
    """Return the outputs of a cell as texts, without what differs from run to run.

    Numbers of seconds and versions are left out, and all numbers of cells that train. Streams and tables are compared
    as text, figures by their data.
    """
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if PLOTLY in data:
            text = json.dumps([{"type": trace.get("type"), **_plotted(trace)} for trace in data[PLOTLY]["data"]])
        else:
            text = output.get("text") or data.get("text/html") or data.get("text/plain", "")
        for pattern, replacement in _VARYING:
            text = pattern.sub(replacement, text)
        texts.append(_NUMBER.sub("#", text) if MEASURED in cell.metadata.get("tags", []) else text)
    return texts


def build(path: Path, draw: Draw) -> None:
    """Execute a notebook and write it with its outputs, whole or not at all."""
    new, stored = execute(path), tidied(nbformat.read(path, as_version=4))
    before = {cell.source: cell for cell in stored.cells if cell.cell_type == "code"}
    for cell in new.cells:
        if cell.cell_type != "code":
            continue
        old = before.get(cell.source)
        if old is not None and comparable(old) == comparable(cell) and all(map(_has_png, old.outputs)):
            cell.outputs = old.outputs
        for output in cell.outputs:
            if not _has_png(output):
                output.data["image/png"] = base64.b64encode(draw(output.data[PLOTLY])).decode()
    write_text(path, nbformat.writes(new) + "\n")


@contextmanager
def drawing() -> Iterator[Draw]:
    """Provide a function that draws a plotly figure as a PNG, in headless Chromium."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    names = (os.environ.get("CHROMIUM") or "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"plots need a browser: one of {', '.join(names)} must be on the PATH, or be $CHROMIUM.")
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
    """Return an output without what differs from run to run; a styled table gets a fixed name."""
    if output.output_type == "stream":
        return nbformat.v4.new_output("stream", name=output.name, text=output.text)
    data = dict(output.data)
    if PLOTLY in data:
        figure = data[PLOTLY]
        data[PLOTLY] = {"data": figure["data"], "layout": figure["layout"]}
        data = {mime_type: data[mime_type] for mime_type in (PLOTLY, "image/png") if mime_type in data}
    if "text/html" in data:
        data["text/html"] = _RANDOM_NAME.sub(name, data["text/html"])
    if "text/plain" in data:
        data["text/plain"] = _ADDRESS.sub("", data["text/plain"])
    more = {"execution_count": output.execution_count} if output.output_type == "execute_result" else {}
    return nbformat.v4.new_output(output.output_type, data=data, **more)


def _has_png(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return PLOTLY not in data or "image/png" in data


def _plotted(trace: dict[str, Any]) -> dict[str, Any]:
    """Return the positions, values and texts of a trace, with packed arrays as lists."""
    keys = ("x", "y", "z", "base", "width", "text", "customdata", "name", "orientation")
    return {key: _unpack(trace[key]) for key in keys if key in trace}


def _unpack(value: Any) -> Any:
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
