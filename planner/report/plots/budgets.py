"""Memory in use against each device's budget."""

import math

import pandas as pd
import plotly.graph_objects as go

from planner.report.plan_frames import memory_frame
from planner.report.plots.style import (
    BLUE,
    INK,
    MAX_DETAILED_ROWS,
    MAX_ROWS,
    PALE,
    axis_label,
    hover_name,
    make_figure,
    mark_bottleneck,
    omission_note,
    rows_axis,
)
from planner.schema import Fleet, Plan, Profile
from planner.units import format_bytes, format_share, shorten

# Budgets further apart than this ratio are shown on a logarithmic axis.
_MAX_LINEAR_RATIO = 30
# Idle devices that are shown beside the used ones of a large fleet; their budgets are often alike.
_NUM_IDLE_SHOWN = 4
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def memory_plot(plan: Plan, profile: Profile, fleet: Fleet) -> go.Figure:
    """Return a plot of each device's memory in use within its budget, the fullest on top, the idle ones last."""
    everything = memory_frame(plan, fleet)
    num_used = len(plan.assignments)
    frame = everything.iloc[: min(max(num_used + _NUM_IDLE_SHOWN, MAX_ROWS // 2), MAX_ROWS)]
    logarithmic = frame["budget_bytes"].max() > _MAX_LINEAR_RATIO * frame["budget_bytes"].min()
    units = (u for u in _UNITS if not logarithmic and frame["budget_bytes"].median() >= u[1])
    unit, factor = next(units, ("bytes", 1))
    detailed = len(frame) <= MAX_DETAILED_ROWS
    rows = list(range(len(frame)))
    hover = [_hover(str(device), row) for device, row in frame.iterrows()]
    budgets = go.Bar(
        name="budget",
        orientation="h",
        y=rows,
        x=(frame["budget_bytes"] / factor).tolist(),
        width=0.7,
        marker={"color": PALE, "line": {"color": INK, "width": 1}},
        hovertext=hover,
        hoverinfo="text",
    )
    used = go.Bar(
        name="in use",
        orientation="h",
        y=rows,
        x=(frame["memory_bytes"] / factor).tolist(),
        width=0.4,
        marker={"color": BLUE},
        hovertext=hover,
        hoverinfo="text",
    )
    axis: dict[str, object] = {"title": f"memory [{unit}]", "rangemode": "tozero"}
    if logarithmic:
        axis = _logarithmic_axis(frame) | {"title": "memory, logarithmic"}
    return make_figure(
        [budgets, used],
        _title(frame),
        note=omission_note(len(frame), len(everything), "fullest"),
        plot_height=70 + len(frame) * (46 if detailed else 24),
        above=30,
        barmode="overlay",
        xaxis=axis,
        yaxis=rows_axis([_label(str(device), row, detailed) for device, row in frame.iterrows()]),
        legend={"traceorder": "normal"},
    )


def _logarithmic_axis(frame: pd.DataFrame) -> dict[str, object]:
    """Return an axis in bytes whose bars begin a step below the smallest value."""
    smallest = min(frame["memory_bytes"].min(), frame["budget_bytes"].min())
    largest = frame["budget_bytes"].max()
    # Powers of 4 and 16 are round numbers in binary units.
    base = 4 if largest < 4**4 * smallest else 16
    first, last = math.floor(math.log(smallest, base)), math.floor(math.log(largest, base))
    steps = [base**power for power in range(first, last + 1)]
    ticks = {"tickmode": "array", "tickvals": steps, "ticktext": [format_bytes(step) for step in steps], "tickangle": 0}
    return {"type": "log", "range": [math.log10(steps[0]) - 0.1, math.log10(largest) + 0.1], **ticks}


def _label(device: str, row: "pd.Series[float]", detailed: bool) -> str:
    name = mark_bottleneck(axis_label(device)) if row["bottleneck"] else axis_label(device)
    idle = pd.isna(row["memory_bytes"])
    if not detailed:
        return f"{name}, idle" if idle else name
    second = (
        f"idle, {format_bytes(row['budget_bytes'])}"
        if idle
        else f"{format_share(row['share'])} of {format_bytes(row['budget_bytes'])}"
    )
    return f"{name}<br>{second}"


def _hover(device: str, row: "pd.Series[float]") -> str:
    if pd.isna(row["memory_bytes"]):
        return f"{hover_name(device)}<br>idle; budget {format_bytes(row['budget_bytes'])}"
    used, budget = format_bytes(row["memory_bytes"]), format_bytes(row["budget_bytes"])
    return f"{hover_name(device)}<br>{used} of {budget} in use, {format_share(row['share'])}"


def _title(frame: pd.DataFrame) -> str:
    fullest = frame.iloc[0]
    used, budget = format_bytes(fullest["memory_bytes"]), format_bytes(fullest["budget_bytes"])
    return f"{shorten(str(frame.index[0]), 30)} is the fullest: {used} of {budget}, {format_share(fullest['share'])}"
