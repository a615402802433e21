"""Memory and storage in use against each device's budgets."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from planner.report.plan_frames import memory_frame
from planner.report.plots.style import (
    BLUE,
    GREY,
    INK,
    MAX_DETAILED_ROWS,
    MAX_ROWS,
    ORANGE,
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


@dataclass(frozen=True)
class _Bars:
    """Bars of one budget in each row: columns of the frame, name in the legend, place within the row, looks."""

    used: str
    budget: str
    of: str  # "memory" or "storage" where both are shown
    center: float
    height: float
    colour: str
    pattern: str  # of the budget

    def traces(self, frame: pd.DataFrame, factor: int, hover: Sequence[str]) -> Iterator[go.Bar]:
        """Yield the budgets, and what is in use within them, in units of `factor` bytes."""
        rows = [i + self.center for i in range(len(frame))]
        pattern = {"shape": self.pattern, "fgcolor": GREY, "size": 6, "solidity": 0.15}
        outlined = {"color": PALE, "line": {"color": INK, "width": 1}, "pattern": pattern}
        for name, column, height, marker in (
            (f"{self.of} budget", self.budget, self.height, outlined),
            (f"{self.of} in use", self.used, 0.57 * self.height, {"color": self.colour}),
        ):
            yield go.Bar(
                name=name.strip(),
                orientation="h",
                y=rows,
                x=(frame[column].astype(float) / factor).tolist(),
                width=height,
                marker=marker,
                hovertext=list(hover),
                hoverinfo="text",
            )


_ALONE = (_Bars("memory_bytes", "budget_bytes", "", 0.0, 0.7, BLUE, ""),)
_BOTH = (
    _Bars("memory_bytes", "budget_bytes", "memory", -0.2, 0.36, BLUE, ""),
    _Bars("storage_bytes", "storage_budget_bytes", "storage", 0.2, 0.36, ORANGE, "/"),
)


def memory_plot(plan: Plan, profile: Profile, fleet: Fleet) -> go.Figure:
    """Return a plot of each device's memory in use within its budget, the fullest on top, the idle ones last.

    Where any device has a storage budget, what is stored is shown beneath.
    """
    everything = memory_frame(plan, fleet)
    num_used = len(plan.assignments)
    frame = everything.iloc[: min(max(num_used + _NUM_IDLE_SHOWN, MAX_ROWS // 2), MAX_ROWS)]
    kinds = _BOTH if fleet.has_storage else _ALONE
    names = "memory and storage" if fleet.has_storage else "memory"
    budgets = pd.concat([frame[bars.budget].dropna() for bars in kinds]).astype(float)
    logarithmic = budgets.max() > _MAX_LINEAR_RATIO * budgets.min()
    units = (u for u in _UNITS if not logarithmic and budgets.median() >= u[1])
    unit, factor = next(units, ("bytes", 1))
    detailed = len(frame) <= MAX_DETAILED_ROWS
    hover = [_hover(str(device), row) for device, row in frame.iterrows()]
    axis: dict[str, object] = {"title": f"{names} [{unit}]", "rangemode": "tozero"}
    if logarithmic:
        values = pd.concat([frame[bars.used].dropna() for bars in kinds]).astype(float)
        axis = _logarithmic_axis(min(values.min(), budgets.min()), budgets.max()) | {"title": f"{names}, logarithmic"}
    return make_figure(
        [trace for bars in kinds for trace in bars.traces(frame, factor, hover)],
        _title(frame),
        note=omission_note(len(frame), len(everything), "fullest"),
        plot_height=70 + len(frame) * ((46 if detailed else 24) + 18 * fleet.has_storage),
        above=30,
        barmode="overlay",
        xaxis=axis,
        yaxis=rows_axis([_label(str(device), row, detailed) for device, row in frame.iterrows()]),
        legend={"traceorder": "normal"},
    )


def _logarithmic_axis(smallest: float, largest: float) -> dict[str, object]:
    """Return an axis in bytes whose bars begin a step below the smallest value."""
    # Powers of 4 and 16 are round numbers in binary units.
    base = 4 if largest < 4**4 * smallest else 16
    first, last = math.floor(math.log(smallest, base)), math.floor(math.log(largest, base))
    steps = [base**power for power in range(first, last + 1)]
    ticks = {"tickmode": "array", "tickvals": steps, "ticktext": [format_bytes(step) for step in steps], "tickangle": 0}
    return {"type": "log", "range": [math.log10(steps[0]) - 0.1, math.log10(largest) + 0.1], **ticks}


def _label(device: str, row: pd.Series, detailed: bool) -> str:
    name = mark_bottleneck(axis_label(device)) if row["bottleneck"] else axis_label(device)
    idle = pd.isna(row["memory_bytes"])
    if not detailed:
        return f"{name}, idle" if idle else name
    if idle:
        granted = [format_bytes(row[key]) for key in ("budget_bytes", "storage_budget_bytes") if not pd.isna(row[key])]
        return f"{name}<br>idle, {' and '.join(granted)}"
    lines = [name, f"{format_share(row['share'])} of {format_bytes(row['budget_bytes'])}"]
    if not pd.isna(row["storage_share"]):
        lines.append(f"{format_share(row['storage_share'])} of {format_bytes(row['storage_budget_bytes'])}")
    return "<br>".join(lines)


def _hover(device: str, row: pd.Series) -> str:
    lines = [hover_name(device)]
    has_storage = not pd.isna(row["storage_budget_bytes"])
    budgets = [("memory_bytes", "budget_bytes", "share", " of memory" * has_storage)]
    if has_storage:
        budgets.append(("storage_bytes", "storage_budget_bytes", "storage_share", " of storage"))
    for used, budget, share, what in budgets:
        granted = format_bytes(row[budget])
        if pd.isna(row[used]):
            lines.append(f"idle; budget {granted}{what}")
        else:
            lines.append(f"{format_bytes(row[used])} of {granted}{what} in use, {format_share(row[share])}")
    return "<br>".join(lines)


def _title(frame: pd.DataFrame) -> str:
    fullest = frame.iloc[0]
    used, budget, share, what = fullest["memory_bytes"], fullest["budget_bytes"], fullest["share"], ""
    if not pd.isna(fullest["storage_share"]):
        what = " of memory"
        if fullest["storage_share"] > share:
            used, budget, share = fullest["storage_bytes"], fullest["storage_budget_bytes"], fullest["storage_share"]
            what = " of storage"
    name = shorten(str(frame.index[0]), 30)
    return f"{name} is the fullest: {format_bytes(used)} of {format_bytes(budget)}{what}, {format_share(share)}"
