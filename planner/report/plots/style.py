"""What all pictures share: colours, fonts, titles, and names that are shown and never interpreted.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; what differs in colour differs in lightness
or pattern as well, for print. Positions on axes are numbers, and names their labels: plotly would take a class "0"
for a number, and two names that are alike when shortened for one.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from planner.units import short, visible

BLUE, SKY, ORANGE, VERMILION = "#0072B2", "#8CCBEE", "#E69F00", "#D55E00"
INK, GREY, PALE, HATCH = "#222222", "#767676", "#E4E4E4", "#4F7F9F"
# The ground of a map, seen where there is nothing.
GROUND = "#F0F0F0"
# From none to all: one hue, darker with more.
SHADES = ((0.0, "#FFFFFF"), (0.25, "#C2DAEE"), (0.5, "#6FAFD8"), (0.75, "#2171B5"), (1.0, "#08306B"))

# As many rows as can be read; of a larger fleet, the ones that matter are shown.
MOST_ROWS = 40
# Up to this many rows there is room for a second line in each label.
FEW_ROWS = 12

_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
_LINE = 21
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


def literal(text: str) -> str:
    """Return a text that plotly shows as it is: it takes <b>, <a>, &lt; and $...$ in any text for markup."""
    escaped = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("$", "&#36;")


def label(name: str, most: int = 18) -> str:
    """Return a name for an axis: shortened, and shown as it is."""
    return literal(short(name, most))


def full(name: str) -> str:
    """Return a whole name for a hover box, in lines that fit it."""
    return "<br>".join(literal(line) for line in textwrap.wrap(visible(name), 60, drop_whitespace=False) or [name])


def strong(text: str) -> str:
    """Return a text that is marked as the bottleneck, not by its weight alone."""
    return f"<b>▶ {text}</b>"


def drawn(
    traces: Sequence[Any],
    title: str,
    *,
    plot_height: int,
    note: str = "",
    above: int = 0,
    margin_b: int = 8,
    **layout: Any,
) -> go.Figure:
    """Return a figure of these traces under a title that says what is to be seen.

    `layout.meta` holds the title and the note as plain text, for a page that shows them itself: see `untitled`.

    Args:
        traces: What is drawn.
        title: A sentence, as plain text.
        plot_height: Of the plot with its axes [px].
        note: A second, smaller line, as plain text.
        above: Room between title and plot [px], for a legend or an axis.
        margin_b: Room below the plot [px], within its height; labels of an axis make their own.
        **layout: As plotly's.
    """
    lines, notes = textwrap.wrap(title, _TITLE_COLUMNS), textwrap.wrap(note, _NOTE_COLUMNS)
    head = 16 + _LINE * len(lines) + 18 * len(notes)
    figure = go.Figure(list(traces))
    figure.update_layout(
        template=TEMPLATE,
        title={
            "text": f"<b>{'<br>'.join(map(literal, lines))}</b>",
            "subtitle": {"text": "<br>".join(map(literal, notes)), "font": {"size": 13, "color": "#555555"}},
            "font": {"size": 15},
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            # The anchor is the first line's, wherever the others are.
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "pad": {"l": 8, "b": above + 8 + 18 * len(notes) + _LINE * (len(lines) - 1)},
        },
        margin={"t": head + above, "b": margin_b},
        height=plot_height + head + above,
        meta={"title": title, "note": note, "above": above},
        **layout,
    )
    return figure


def untitled(figure: go.Figure) -> go.Figure:
    """Return a copy of a figure without its title, whose place is given to the page's."""
    bare = go.Figure(figure)
    above = figure.layout.meta["above"] + 8
    bare.update_layout(title=None, height=figure.layout.height - figure.layout.margin.t + above, margin={"t": above})
    return bare


def plotly_script() -> str:
    """Return plotly.js, for a page that draws without a network."""
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


def shown_of(shown: int, total: int, which: str, what: str = "devices") -> str:
    """Return what a picture leaves out: "The 40 slowest of 1,000 devices are shown."; nothing where it is nothing."""
    return f"The {shown} {which} of {total:,} {what} are shown." if shown < total else ""
