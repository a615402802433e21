"""What other fleets and goals would bring: scenarios side by side."""

import math
import textwrap
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from planner.report.plots.style import BLUE, INK, MOST_ROWS, ORANGE, drawn, full, label, literal, rows_axis, shown_of
from planner.units import counted, ms, short, visible

_ROW = 34
# How long the lines of a name and of a reason may be, side by side on a phone.
_NAME_LINE, _REASON_LINE = 22, 34
# Of many scenarios, how many without a plan are shown.
_MOST_WITHOUT = 10


def what_if_plot(frame: pd.DataFrame) -> go.Figure:
    """Return the change against today of each scenario [ms]: gains on top, those without a plan at the bottom."""
    today = frame.iloc[0]
    rows = frame.iloc[1:].sort_values("change_us", kind="stable", na_position="last")
    shown = _ends(rows)
    num_known = int(shown["change_us"].notna().sum())
    known, none = shown.iloc[:num_known], shown.iloc[num_known:]
    changes = [0.0, *(known["change_us"] / 1000)]
    low, high = min(changes), max(changes)
    span = (high - low) or 1.0
    # Room for the numbers beside the bars.
    left, right = low - (0.3 if low else 0.06) * span, high + (0.3 if high else 0.06) * span
    slower = known["change_us"] >= 0
    traces = [
        _bars("faster", known[~slower], 0, BLUE, ""),
        _bars("slower", known[slower], int((~slower).sum()), ORANGE, "/"),
        # Beside what has a plan only: no line through the reasons.
        go.Scatter(
            name="today",
            x=[0, 0],
            y=[-0.5, num_known - 0.5],
            mode="lines",
            line={"color": INK, "width": 1},
            showlegend=False,
            hoverinfo="skip",
        ),
        go.Scatter(
            name="no plan",
            x=[left] * len(none),
            y=[num_known + i for i in range(len(none))],
            mode="text",
            text=[_reason(row) for _, row in none.iterrows()],
            textposition="middle right",
            textfont={"size": 11},
            hovertext=[_hover(row) for _, row in none.iterrows()],
            hoverinfo="text",
            showlegend=False,
        ),
    ]
    return drawn(
        traces,
        _title(today, rows),
        note=shown_of(len(shown), len(rows), "most different", "scenarios"),
        plot_height=76 + max(1, len(shown)) * _ROW,
        above=30,
        xaxis={"title": "change of the latency [ms]", "range": [left, right]},
        yaxis=rows_axis([_lines(short(str(name), 2 * _NAME_LINE - 4), _NAME_LINE) for name in shown.index]),
        barmode="overlay",
    )


def _bars(name: str, rows: pd.DataFrame, first: int, colour: str, pattern: str) -> go.Bar:
    """Return the changes of these scenarios, from this row on."""
    changes = (rows["change_us"] / 1000).tolist()
    return go.Bar(
        name=name,
        orientation="h",
        y=[first + i for i in range(len(rows))],
        x=changes,
        width=0.66,
        marker={
            "color": colour,
            "pattern": {"shape": pattern, "bgcolor": colour, "fgcolor": INK, "size": 9, "solidity": 0.12},
            "line": {"color": INK, "width": 0.5},
        },
        text=[_signed(change) for change in changes],
        textposition="outside",
        cliponaxis=False,
        hovertext=[_hover(row) for _, row in rows.iterrows()],
        hoverinfo="text",
    )


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Return as many rows as can be read: the greatest gains and losses, and some of those without a plan."""
    if len(rows) <= MOST_ROWS:
        return rows
    num_known = int(rows["change_us"].notna().sum())
    num_without = min(len(rows) - num_known, max(_MOST_WITHOUT, MOST_ROWS - num_known))
    known, room = rows.iloc[:num_known], MOST_ROWS - num_without
    if num_known > room:
        known = pd.concat([known.iloc[: room // 2], known.iloc[room // 2 - room :]])
    ends: pd.DataFrame = pd.concat([known, rows.iloc[num_known : num_known + num_without]])
    return ends


def _signed(change_ms: float) -> str:
    if not change_ms:
        return "0"
    size = abs(change_ms)
    return f"{change_ms:+,.0f}" if size >= 100 else f"{change_ms:+.1f}" if size >= 1 else f"{change_ms:+.2g}"


def _reason(row: "pd.Series[Any]") -> str:
    """Return why there is no change to be shown, in two short lines."""
    if not math.isnan(row["latency_us"]):
        return f"✓ a plan, {ms(row['latency_us'])}"
    reason = visible(str(row["reason"] or "no plan")).removeprefix("No plan: ")
    return _lines(f"✕ {row['status']}: {reason}", _REASON_LINE)


def _lines(text: str, columns: int) -> str:
    """Return the beginning of a text in two lines."""
    return "<br>".join(map(literal, textwrap.wrap(text, columns, max_lines=2, placeholder=" …")))


def _hover(row: "pd.Series[Any]") -> str:
    name = full(str(row.name))
    if math.isnan(row["latency_us"]):
        return f"{name}<br>{literal(str(row['status']))}: {full(str(row['reason'] or 'no plan'))}"
    change = "" if math.isnan(row["change_us"]) else f", {_signed(row['change_us'] / 1000)} ms"
    proof = f"bound {ms(row['bound_us'])}<br>bottleneck {label(str(row['bottleneck']))}"
    return f"{name}<br>{ms(row['latency_us'])}{change}; {proof}"


def _title(today: "pd.Series[Any]", rows: pd.DataFrame) -> str:
    num_plans = int(rows["latency_us"].notna().sum())
    if math.isnan(today["latency_us"]):
        return f"Today there is no plan; {num_plans:,} of {counted(len(rows), 'scenario')} would have one"
    parts = [f"Today {ms(today['latency_us'])}"]
    if num_plans:
        best, worst = rows.iloc[0], rows.iloc[num_plans - 1]
        for word, row, told in (("best", best, best["change_us"] < 0), ("worst", worst, worst["change_us"] > 0)):
            if told:
                parts.append(f"{word} {short(str(row.name), 30)}, {_signed(row['change_us'] / 1000)} ms")
        if len(parts) == 1:
            parts.append("no scenario changes that")
    if none := len(rows) - num_plans:
        parts.append(f"{none:,} of {counted(len(rows), 'scenario')} without a plan")
    return "; ".join(parts)
