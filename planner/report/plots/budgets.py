"""Memory in use against each device's budget."""

import math

import pandas as pd
import plotly.graph_objects as go

from planner.report.plan_frames import memory_frame
from planner.report.plots.style import (
    BLUE,
    FEW_ROWS,
    INK,
    MOST_ROWS,
    PALE,
    drawn,
    full,
    label,
    rows_axis,
    shown_of,
    strong,
)
from planner.schema import Fleet, Plan, Profile
from planner.units import percent, short, size

# Budgets that differ by more than this are shown on a logarithmic axis.
_WIDE = 30
# Of idle devices, whose budgets are often alike, at least so many.
_SOME_IDLE = 4
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def memory_plot(plan: Plan, profile: Profile, fleet: Fleet) -> go.Figure:
    """Return what each device's sub-model takes of its memory budget, the fullest on top, the idle ones last."""
    everything = memory_frame(plan, fleet)
    num_used = len(plan.assignments)
    frame = everything.iloc[: min(max(num_used + _SOME_IDLE, MOST_ROWS // 2), MOST_ROWS)]
    wide = frame["budget_bytes"].max() > _WIDE * frame["budget_bytes"].min()
    units = (u for u in _UNITS if not wide and frame["budget_bytes"].median() >= u[1])
    unit, factor = next(units, ("bytes", 1))
    few = len(frame) <= FEW_ROWS
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
    if wide:
        axis = _logarithmic(frame) | {"title": "memory, logarithmic"}
    return drawn(
        [budgets, used],
        _title(frame),
        note=shown_of(len(frame), len(everything), "fullest"),
        plot_height=70 + len(frame) * (46 if few else 24),
        above=30,
        barmode="overlay",
        xaxis=axis,
        yaxis=rows_axis([_label(str(device), row, few) for device, row in frame.iterrows()]),
        legend={"traceorder": "normal"},
    )


def _logarithmic(frame: pd.DataFrame) -> dict[str, object]:
    """Return an axis in bytes whose bars begin a step below the least value."""
    least = min(frame["memory_bytes"].min(), frame["budget_bytes"].min())
    most = frame["budget_bytes"].max()
    base = 4 if most < 4**4 * least else 16
    first, last = math.floor(math.log(least, base)), math.floor(math.log(most, base))
    steps = [base**power for power in range(first, last + 1)]
    ticks = {"tickmode": "array", "tickvals": steps, "ticktext": [size(step) for step in steps], "tickangle": 0}
    return {"type": "log", "range": [math.log10(steps[0]) - 0.1, math.log10(most) + 0.1], **ticks}


def _label(device: str, row: "pd.Series[float]", few: bool) -> str:
    name = strong(label(device)) if row["bottleneck"] else label(device)
    idle = pd.isna(row["memory_bytes"])
    if not few:
        return f"{name}, idle" if idle else name
    second = f"idle, {size(row['budget_bytes'])}" if idle else f"{percent(row['share'])} of {size(row['budget_bytes'])}"
    return f"{name}<br>{second}"


def _hover(device: str, row: "pd.Series[float]") -> str:
    if pd.isna(row["memory_bytes"]):
        return f"{full(device)}<br>idle; budget {size(row['budget_bytes'])}"
    used, budget = size(row["memory_bytes"]), size(row["budget_bytes"])
    return f"{full(device)}<br>{used} of {budget} in use, {percent(row['share'])}"


def _title(frame: pd.DataFrame) -> str:
    fullest = frame.iloc[0]
    used, budget = size(fullest["memory_bytes"]), size(fullest["budget_bytes"])
    return f"{short(str(frame.index[0]), 30)} is the fullest: {used} of {budget}, {percent(fullest['share'])}"
