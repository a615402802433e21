"""Style of all plots: colours, fonts, titles, and names as plain text.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; what differs in colour differs in lightness
or pattern as well, for print. Positions on axes are numbers, and names their labels: plotly would take a class "0"
for a number, and merge two names that are alike when shortened.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from planner.units import shorten, visible

BLUE, SKY, ORANGE, VERMILION = "#0072B2", "#8CCBEE", "#E69F00", "#D55E00"
INK, GREY, PALE, HATCH = "#222222", "#767676", "#E4E4E4", "#4F7F9F"
# Ground of a map, visible where a cell is missing.
GROUND = "#F0F0F0"
# Colour scale from none to all: one hue, darker with more.
SHADES = ((0.0, "#FFFFFF"), (0.25, "#C2DAEE"), (0.5, "#6FAFD8"), (0.75, "#2171B5"), (1.0, "#08306B"))

# More rows could not be read; of a larger fleet, the most important ones are shown.
MAX_ROWS = 40
# Up to so many rows there is room for a second line in each label.
MAX_DETAILED_ROWS = 12

_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
_TITLE_LINE_PX, _NOTE_LINE_PX = 21, 18
_TITLE_COLUMNS, _NOTE_COLUMNS = 42, 52
_AXIS = {
    "automargin": True,
    "gridcolor": PALE,
    "linecolor": GREY,
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": GREY,
    "zeroline": False,
    "title": {"standoff": 8, "font": {"size": 13}},
    "tickfont": {"size": 12},
    "ticklabelstandoff": 3,
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": _FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"bgcolor": "white", "bordercolor": INK, "font": {"family": _FONT, "size": 13, "color": INK}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "title": {"text": ""},
        },
        "margin": {"l": 8, "r": 16, "t": 40, "b": 8},
        "dragmode": False,
    }
)


def escape(text: str) -> str:
    """Escape a text for plotly, which takes <b>, <a>, &lt; and $...$ in any text for markup."""
    escaped = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("$", "&#36;")


def axis_label(name: str, max_length: int = 18) -> str:
    """Return a shortened and escaped name, for an axis."""
    return escape(shorten(name, max_length))


def hover_name(name: str) -> str:
    """Return a whole escaped name, in lines that fit a hover box."""
    return "<br>".join(escape(line) for line in textwrap.wrap(visible(name), 60, drop_whitespace=False) or [name])


def mark_bottleneck(text: str) -> str:
    """Mark a label as the bottleneck, by a sign as well as by its weight."""
    return f"<b>▶ {text}</b>"


def make_figure(
    traces: Sequence[Any],
    title: str,
    *,
    plot_height: int,
    note: str = "",
    above: int = 0,
    margin_b: int = 8,
    **layout: Any,
) -> go.Figure:
    """Return a figure of these traces under a title that states its message.

    `layout.meta` holds the title and the note as plain text, for a page that shows them itself: see `without_title`.

    Args:
        traces: Traces of plotly.
        title: Sentence in plain text.
        plot_height: Height of the plot with its axes [px].
        note: Second, smaller line in plain text.
        above: Room between title and plot [px], for a legend or an axis.
        margin_b: Room below the plot [px], within its height; labels of an axis make their own.
        **layout: Further properties of plotly's layout.
    """
    lines, notes = textwrap.wrap(title, _TITLE_COLUMNS), textwrap.wrap(note, _NOTE_COLUMNS)
    head = 16 + _TITLE_LINE_PX * len(lines) + _NOTE_LINE_PX * len(notes)
    figure = go.Figure(list(traces))
    figure.update_layout(
        template=TEMPLATE,
        title={
            "text": f"<b>{'<br>'.join(map(escape, lines))}</b>",
            "subtitle": {"text": "<br>".join(map(escape, notes)), "font": {"size": 13, "color": "#555555"}},
            "font": {"size": 15},
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            # plotly anchors the first line, wherever the others are.
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "pad": {"l": 8, "b": above + 8 + _NOTE_LINE_PX * len(notes) + _TITLE_LINE_PX * (len(lines) - 1)},
        },
        margin={"t": head + above, "b": margin_b},
        height=plot_height + head + above,
        meta={"title": title, "note": note, "above": above},
        **layout,
    )
    return figure


def without_title(figure: go.Figure) -> go.Figure:
    """Return a copy of a figure without its title and the room for it."""
    bare = go.Figure(figure)
    above = figure.layout.meta["above"] + 8
    bare.update_layout(title=None, height=figure.layout.height - figure.layout.margin.t + above, margin={"t": above})
    return bare


def plotly_script() -> str:
    """Return the source of plotly.js, for a page that works without a network."""
    return str(get_plotlyjs())


def rows_axis(labels: Sequence[str], **axis: Any) -> dict[str, Any]:
    """Return an axis of named rows from the top down, at 0, 1, 2 and so on."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": list(labels),
        "range": [len(labels) - 0.5, -0.5],
        "showgrid": False,
        "ticks": "",
        **axis,
    }


def omission_note(num_shown: int, num_total: int, which: str, noun: str = "devices") -> str:
    """Return a note such as "The 40 slowest of 1,000 devices are shown."; empty if all are shown."""
    return f"The {num_shown} {which} of {num_total:,} {noun} are shown." if num_shown < num_total else ""
