"""Parts of plotly figures."""

from typing import Any

import plotly.graph_objects as go


def title(figure: go.Figure) -> str:
    """Return the title of a figure."""
    return str(figure.layout.meta["title"])


def trace(figure: go.Figure, name: str) -> Any:
    """Return the trace of this name."""
    return next(t for t in figure.data if t.name == name)
