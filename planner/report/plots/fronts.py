"""Pareto fronts: latency against accuracy, memory or energy."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from planner.report.plots.style import BLUE, GREY, INK, escape, make_figure
from planner.units import count_noun, format_against, format_energy_mj, format_time_us

# Title of the axis that latency is plotted against.
_AXES = {
    "accuracy": "predicted fused accuracy [%]",
    "memory": "memory that all devices grant [MiB]",
    "energy": "energy of one image [mJ]",
}
# Label of a point's limit.
_LIMITS = {"accuracy": "drop {:.3g}%", "memory": "× {:.2g}", "energy": "≤ {:.3g}"}


def pareto_plot(frame: pd.DataFrame) -> go.Figure:
    """Return a plot of latency against accuracy, memory or energy: points with their limits, bounds beneath them."""
    against = str(frame["against"].iloc[0])
    known = frame[frame["latency_us"].notna()].sort_values("value", kind="stable")
    values = [_axis_value(against, value) for value in known["value"]]
    latencies, bounds = (known["latency_us"] / 1000).tolist(), (known["bound_us"] / 1000).tolist()
    proven = [status == "optimal" for status in known["status"]]
    plans = _points(against, known, values, latencies)
    plans.update(
        name="plan",
        mode="lines+markers+text",
        text=[_LIMITS[against].format(100 * limit if against == "accuracy" else limit) for limit in known["limit"]],
        textposition="top center",
        textfont={"size": 12},
        cliponaxis=False,
        line={"color": BLUE, "width": 1, "dash": "dot"},
        # Hollow where it is not proven.
        marker={"size": 11, "color": [BLUE if yes else "white" for yes in proven], "line": {"color": BLUE, "width": 2}},
    )
    floors = _points(against, known, values, bounds)
    mark = {"symbol": "line-ew", "size": 18, "line": {"color": INK, "width": 2}}
    floors.update(name="bound", mode="markers", marker=mark)
    notes = [f"{count_noun(len(frame) - len(known), 'limit')} without a plan."] * (len(known) < len(frame))
    notes += ["A hollow point is not proven optimal: no plan is below its bound."] * (not all(proven))
    return make_figure(
        [plans, _gaps(values, latencies, bounds), floors],
        _title(against, known),
        note=" ".join(notes),
        plot_height=340,
        above=30,
        xaxis={"title": _AXES[against], "nticks": 8},
        yaxis={"title": "latency [ms]", "range": [0, max(latencies, default=1.0) * 1.15]},
        hovermode="closest",
    )


def _points(against: str, known: pd.DataFrame, x: Sequence[float], y: Sequence[float]) -> go.Scatter:
    return go.Scatter(x=x, y=y, hovertext=[_hover(against, row) for _, row in known.iterrows()], hoverinfo="text")


def _gaps(values: Sequence[float], latencies: Sequence[float], bounds: Sequence[float]) -> go.Scatter:
    """Return a line from each point to its bound."""
    x = [x for value in values for x in (value, value, None)]
    y = [y for pair in zip(latencies, bounds, strict=True) for y in (*pair, None)]
    return go.Scatter(x=x, y=y, mode="lines", line={"color": GREY, "width": 1}, showlegend=False, hoverinfo="skip")


def _axis_value(against: str, value: float) -> float:
    return 100 * value if against == "accuracy" else value / 2**20 if against == "memory" else value


def _hover(against: str, row: "pd.Series[Any]") -> str:
    limits = {
        "accuracy": f"accuracy drop of at most {100 * row['limit']:.3g}%",
        "memory": f"memory budgets times {row['limit']:.3g}",
        "energy": f"at most {format_energy_mj(row['limit'])}",
    }
    point = f"{format_time_us(row['latency_us'])} at {format_against(against, row['value'])}"
    proof = f"bound {format_time_us(row['bound_us'])}, {escape(str(row['status']))}"
    return f"{point}<br>{limits[against]}<br>{proof}"


def _title(against: str, known: pd.DataFrame) -> str:
    name = {"accuracy": "predicted accuracy", "memory": "memory granted", "energy": "energy"}[against]
    if not len(known):
        return f"No plan at any limit of {against}"
    by_latency = known.sort_values("latency_us", kind="stable")
    fast, slow = (
        f"{format_time_us(row['latency_us'])} with {format_against(against, row['value'])}"
        for row in (by_latency.iloc[0], by_latency.iloc[-1])
    )
    return f"Latency against {name}: {fast}" if fast == slow else f"Latency against {name}: from {fast} to {slow}"
