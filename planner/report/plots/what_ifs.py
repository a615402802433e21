"""Scenarios side by side: change of the latency with other fleets and goals."""

import math
import textwrap
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from planner.report.plots.style import (
    BLUE,
    INK,
    MAX_ROWS,
    ORANGE,
    axis_label,
    escape,
    hover_name,
    make_figure,
    omission_note,
    rows_axis,
)
from planner.units import count_noun, format_ms, format_time_us, shorten, visible

_ROW_PX = 34
# Characters in a line of a name and of a reason, side by side on a phone.
_NAME_LINE, _REASON_LINE = 22, 34
# Of many scenarios, at least so many without a plan are shown.
_NUM_WITHOUT_PLAN = 10


def what_if_plot(frame: pd.DataFrame) -> go.Figure:
    """Return a plot of each scenario's change against today [ms]: gains on top, those without a plan at the bottom."""
    today = frame.iloc[0]
    rows = frame.iloc[1:].sort_values("change_us", kind="stable", na_position="last")
    shown = _extremes(rows)
    num_known = int(shown["change_us"].notna().sum())
    known, without_plan = shown.iloc[:num_known], shown.iloc[num_known:]
    changes = [0.0, *(known["change_us"] / 1000)]
    low, high = min(changes), max(changes)
    span = (high - low) or 1.0
    # Room for the numbers beside the bars.
    left, right = low - (0.3 if low else 0.06) * span, high + (0.3 if high else 0.06) * span
    slower = known["change_us"] >= 0
    traces = [
        _bars("faster", known[~slower], 0, BLUE, ""),
        _bars("slower", known[slower], int((~slower).sum()), ORANGE, "/"),
        _today_line(num_known),
        _reasons_beside(left, without_plan, num_known),
    ]
    return make_figure(
        traces,
        _title(today, rows),
        note=omission_note(len(shown), len(rows), "most different", "scenarios"),
        plot_height=76 + max(1, len(shown)) * _ROW_PX,
        above=30,
        xaxis={"title": "change of the latency [ms]", "range": [left, right]},
        yaxis=rows_axis([_lines(shorten(str(name), 2 * _NAME_LINE - 4), _NAME_LINE) for name in shown.index]),
        barmode="overlay",
    )


def _bars(name: str, rows: pd.DataFrame, first: int, colour: str, pattern: str) -> go.Bar:
    """Return the changes of these scenarios, from this row on."""
    return go.Bar(
        name=name,
        orientation="h",
        y=[first + i for i in range(len(rows))],
        x=(rows["change_us"] / 1000).tolist(),
        width=0.66,
        marker={
            "color": colour,
            "pattern": {"shape": pattern, "bgcolor": colour, "fgcolor": INK, "size": 9, "solidity": 0.12},
            "line": {"color": INK, "width": 0.5},
        },
        text=[format_ms(change_us, signed=True) for change_us in rows["change_us"]],
        textposition="outside",
        cliponaxis=False,
        hovertext=[_hover(row) for _, row in rows.iterrows()],
        hoverinfo="text",
    )


def _today_line(num_rows: int) -> go.Scatter:
    """Return a line at no change, beside the scenarios with a plan: it would run through the reasons of others."""
    return go.Scatter(
        name="today",
        x=[0, 0],
        y=[-0.5, num_rows - 0.5],
        mode="lines",
        line={"color": INK, "width": 1},
        showlegend=False,
        hoverinfo="skip",
    )


def _reasons_beside(x: float, rows: pd.DataFrame, first: int) -> go.Scatter:
    """Return the reasons of scenarios without a plan as text, from this row on."""
    return go.Scatter(
        name="no plan",
        x=[x] * len(rows),
        y=[first + i for i in range(len(rows))],
        mode="text",
        text=[_reason(row) for _, row in rows.iterrows()],
        textposition="middle right",
        textfont={"size": 11},
        hovertext=[_hover(row) for _, row in rows.iterrows()],
        hoverinfo="text",
        showlegend=False,
    )


def _extremes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the greatest gains and losses, and some of the scenarios without a plan, if there are too many to read."""
    if len(rows) <= MAX_ROWS:
        return rows
    num_known = int(rows["change_us"].notna().sum())
    num_without = min(len(rows) - num_known, max(_NUM_WITHOUT_PLAN, MAX_ROWS - num_known))
    known, room = rows.iloc[:num_known], MAX_ROWS - num_without
    if num_known > room:
        known = pd.concat([known.iloc[: room // 2], known.iloc[room // 2 - room :]])
    extremes: pd.DataFrame = pd.concat([known, rows.iloc[num_known : num_known + num_without]])
    return extremes


def _reason(row: "pd.Series[Any]") -> str:
    """Return the reason for a missing change in two short lines."""
    if not math.isnan(row["latency_us"]):
        return f"✓ a plan, {format_time_us(row['latency_us'])}"
    reason = visible(str(row["reason"] or "no plan")).removeprefix("No plan: ")
    return _lines(f"✕ {row['status']}: {reason}", _REASON_LINE)


def _lines(text: str, columns: int) -> str:
    """Return the beginning of a text in two lines."""
    return "<br>".join(map(escape, textwrap.wrap(text, columns, max_lines=2, placeholder=" …")))


def _hover(row: "pd.Series[Any]") -> str:
    name = hover_name(str(row.name))
    if math.isnan(row["latency_us"]):
        return f"{name}<br>{escape(str(row['status']))}: {hover_name(str(row['reason'] or 'no plan'))}"
    change = "" if math.isnan(row["change_us"]) else f", {format_time_us(row['change_us'], signed=True)}"
    proof = f"bound {format_time_us(row['bound_us'])}<br>bottleneck {axis_label(str(row['bottleneck']))}"
    return f"{name}<br>{format_time_us(row['latency_us'])}{change}; {proof}"


def _title(today: "pd.Series[Any]", rows: pd.DataFrame) -> str:
    num_plans = int(rows["latency_us"].notna().sum())
    if math.isnan(today["latency_us"]):
        return f"Today there is no plan; {num_plans:,} of {count_noun(len(rows), 'scenario')} would have one"
    parts = [f"Today {format_time_us(today['latency_us'])}"]
    if num_plans:
        best, worst = rows.iloc[0], rows.iloc[num_plans - 1]
        for word, row, changed in (("best", best, best["change_us"] < 0), ("worst", worst, worst["change_us"] > 0)):
            if changed:
                parts.append(f"{word} {shorten(str(row.name), 30)}, {format_time_us(row['change_us'], signed=True)}")
        if len(parts) == 1:
            parts.append("no scenario changes that")
    if num_without := len(rows) - num_plans:
        parts.append(f"{num_without:,} of {count_noun(len(rows), 'scenario')} without a plan")
    return "; ".join(parts)
