"""Pictures of many plans: what other fleets would bring, and what one thing costs in another."""

import math
import textwrap
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from planner.report.pictures.style import (
    BLUE,
    GREY,
    INK,
    MOST_ROWS,
    ORANGE,
    drawn,
    full,
    label,
    literal,
    rows_axis,
    shown_of,
)
from planner.report.words import counted, ms, percent, short, size, visible

_ROW = 34
# How long the lines of a name and of a reason may be, side by side on a phone.
_NAME_LINE, _REASON_LINE = 22, 34
# What a Pareto frame is against, as an axis.
_AGAINST = {
    "accuracy": "predicted fused accuracy [%]",
    "memory": "memory in use on all devices [MiB]",
    "energy": "energy of one image [mJ]",
}
# How a point's limit is written beside it.
_LIMITS = {"accuracy": "drop {:.3g}%", "memory": "× {:.2g}", "energy": "≤ {:.3g}"}


def what_if(frame: pd.DataFrame) -> go.Figure:
    """Return the change against today of each scenario [ms]: gains on top, impossible ones at the bottom."""
    rows = frame[frame.index != frame.index[0]]
    rows = rows.sort_values("change_us", kind="stable", na_position="last")
    shown = _ends(rows)
    names = [str(name) for name in shown.index]
    changes = shown["change_us"] / 1000
    traces = []
    for name, colour, pattern, here in (
        ("faster", BLUE, "", changes < 0),
        ("slower", ORANGE, "/", changes >= 0),
    ):
        at = [i for i, yes in enumerate(here) if yes]
        traces.append(
            go.Bar(
                name=name,
                orientation="h",
                y=at,
                x=[float(changes.iloc[i]) for i in at],
                width=0.66,
                marker={
                    "color": colour,
                    "pattern": {"shape": pattern, "bgcolor": colour, "fgcolor": INK, "size": 9, "solidity": 0.12},
                    "line": {"color": INK, "width": 0.5},
                },
                text=[_signed(float(changes.iloc[i])) for i in at],
                textposition="outside",
                cliponaxis=False,
                hovertext=[_scenario(names[i], shown.iloc[i]) for i in at],
                hoverinfo="text",
            )
        )
    low, high = min([0.0, *changes.dropna()]), max([0.0, *changes.dropna()])
    span = (high - low) or 1.0
    # Room for the numbers beside the bars.
    left, right = low - (0.3 if low else 0.06) * span, high + (0.3 if high else 0.06) * span
    none = [i for i, value in enumerate(changes) if math.isnan(value)]
    # Today, beside what has a plan: no line through the reasons.
    ends = {"x": [0, 0], "y": [-0.5, len(shown) - len(none) - 0.5]}
    traces.append(
        go.Scatter(
            **ends, name="today", mode="lines", line={"color": INK, "width": 1}, showlegend=False, hoverinfo="skip"
        )
    )
    traces.append(
        go.Scatter(
            name="no plan",
            x=[left] * len(none),
            y=none,
            mode="text",
            text=[_reason(shown.iloc[i]) for i in none],
            textposition="middle right",
            textfont={"size": 11},
            hovertext=[_scenario(names[i], shown.iloc[i]) for i in none],
            hoverinfo="text",
            showlegend=False,
        )
    )
    return drawn(
        traces,
        _what_if_title(frame.iloc[0], rows),
        note=shown_of(len(shown), len(rows), "most different", "scenarios"),
        plot_height=76 + max(1, len(shown)) * _ROW,
        above=30,
        xaxis={
            "title": "change of the latency [ms]",
            "range": [left, right],
        },
        yaxis=rows_axis([_lines(short(name, 2 * _NAME_LINE - 4), _NAME_LINE) for name in names]),
        barmode="overlay",
    )


def pareto(frame: pd.DataFrame) -> go.Figure:
    """Return latency against accuracy, memory or energy: each point with the bound beneath it."""
    against = str(frame["against"].iloc[0])
    known = frame[frame["latency_us"].notna()].sort_values("value", kind="stable")
    values = [_shown_value(against, value) for value in known["value"]]
    latencies, bounds = (known["latency_us"] / 1000).tolist(), (known["bound_us"] / 1000).tolist()
    proven = [status == "optimal" for status in known["status"]]
    gaps_x = [x for value in values for x in (value, value, None)]
    gaps_y = [y for pair in zip(latencies, bounds, strict=True) for y in (*pair, None)]
    hover = [_point(against, row) for _, row in known.iterrows()]
    traces = [
        go.Scatter(
            name="plan",
            x=values,
            y=latencies,
            mode="lines+markers+text",
            text=[_LIMITS[against].format(100 * limit if against == "accuracy" else limit) for limit in known["limit"]],
            textposition="top center",
            textfont={"size": 12},
            cliponaxis=False,
            line={"color": BLUE, "width": 1, "dash": "dot"},
            marker={
                "size": 11,
                "color": [BLUE if yes else "white" for yes in proven],
                "line": {"color": BLUE, "width": 2},
            },
            hovertext=hover,
            hoverinfo="text",
        ),
        go.Scatter(
            x=gaps_x, y=gaps_y, mode="lines", line={"color": GREY, "width": 1}, showlegend=False, hoverinfo="skip"
        ),
        go.Scatter(
            name="bound",
            x=values,
            y=bounds,
            mode="markers",
            marker={"symbol": "line-ew", "size": 18, "line": {"color": INK, "width": 2}},
            hovertext=hover,
            hoverinfo="text",
        ),
    ]
    note = "" if all(proven) else "A hollow point is not proven optimal: no plan is below its bound."
    if (lost := len(frame) - len(known)) > 0:
        note = f"{counted(lost, 'limit')} without a plan. {note}".strip()
    top = max(latencies, default=1.0)
    return drawn(
        traces,
        _pareto_title(against, known),
        note=note,
        plot_height=340,
        above=30,
        xaxis={"title": _AGAINST[against], "nticks": 8},
        yaxis={"title": "latency [ms]", "range": [0, top * 1.15]},
        hovermode="closest",
    )


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Return as many rows as can be read: of the gains and of the losses those that are greatest."""
    if len(rows) <= MOST_ROWS:
        return rows
    half = MOST_ROWS // 2
    ends: pd.DataFrame = pd.concat([rows.iloc[:half], rows.iloc[half - MOST_ROWS :]])
    return ends


def _signed(change_ms: float) -> str:
    return f"{change_ms:+,.0f}" if abs(change_ms) >= 100 else f"{change_ms:+.1f}" if change_ms else "0"


def _reason(row: "pd.Series[Any]") -> str:
    """Return why there is no plan, in two short lines."""
    reason = visible(str(row["reason"] or "no plan")).removeprefix("No plan: ")
    return _lines(f"✕ {row['status']}: {reason}", _REASON_LINE)


def _lines(text: str, columns: int) -> str:
    """Return the beginning of a text in two lines."""
    lines = textwrap.wrap(text, columns, max_lines=2, placeholder=" …")
    return "<br>".join(map(literal, lines))


def _scenario(name: str, row: "pd.Series[Any]") -> str:
    if math.isnan(row["change_us"]):
        return f"{full(name)}<br>{literal(str(row['status']))}: {full(str(row['reason'] or ''))}"
    change = f"{ms(row['latency_us'])}, {_signed(row['change_us'] / 1000)} ms; bound {ms(row['bound_us'])}"
    return f"{full(name)}<br>{change}<br>bottleneck {label(str(row['bottleneck']))}"


def _what_if_title(today: "pd.Series[Any]", rows: pd.DataFrame) -> str:
    possible = rows[rows["change_us"].notna()]
    parts = [f"Today {ms(today['latency_us'])}"]
    if len(possible):
        best, worst = possible.iloc[0], possible.iloc[-1]
        if best["change_us"] < 0:
            parts.append(f"best {short(str(best.name), 30)}, {_signed(best['change_us'] / 1000)} ms")
        if worst["change_us"] > 0:
            parts.append(f"worst {short(str(worst.name), 30)}, {_signed(worst['change_us'] / 1000)} ms")
        if not best["change_us"] and not worst["change_us"]:
            parts.append("no scenario changes that")
    if none := len(rows) - len(possible):
        parts.append(f"{none:,} of {counted(len(rows), 'scenario')} without a plan")
    return "; ".join(parts)


def _shown_value(against: str, value: float) -> float:
    return 100 * value if against == "accuracy" else value / 2**20 if against == "memory" else value


def _said(against: str, value: float) -> str:
    return f"{value:.1%}" if against == "accuracy" else size(value) if against == "memory" else f"{value:.3g} mJ"


def _point(against: str, row: "pd.Series[Any]") -> str:
    limits = {
        "accuracy": f"accuracy drop of at most {percent(row['limit'])}",
        "memory": f"memory budgets times {row['limit']:.3g}",
        "energy": f"at most {row['limit']:.3g} mJ",
    }
    proof = f"bound {ms(row['bound_us'])}, {literal(str(row['status']))}"
    return f"{ms(row['latency_us'])} at {_said(against, row['value'])}<br>{limits[against]}<br>{proof}"


def _pareto_title(against: str, known: pd.DataFrame) -> str:
    if not len(known):
        return f"No plan at any limit of {against}"
    by_latency = known.sort_values("latency_us", kind="stable")
    fast, slow = by_latency.iloc[0], by_latency.iloc[-1]
    ends = [f"{ms(row['latency_us'])} with {_said(against, row['value'])}" for row in (fast, slow)]
    name = {"accuracy": "predicted accuracy", "memory": "memory in use", "energy": "energy"}[against]
    if fast["latency_us"] == slow["latency_us"]:
        return f"Latency against {name}: {ends[0]}"
    return f"Latency against {name}: from {ends[0]} to {ends[1]}"
