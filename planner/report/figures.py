"""Plots for print, drawn with matplotlib in the colours and patterns of the interactive ones."""

from typing import TYPE_CHECKING

import pandas as pd

from planner.errors import PlannerError
from planner.report.plan_frames import times_frame
from planner.schema import Plan
from planner.units import format_time_us, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# (column, name, colour, hatch)
_PARTS = (
    ("send_us", "send", "#8CCBEE", "//"),
    ("compute_us", "compute", "#0072B2", ""),
    ("return_us", "return", "#8CCBEE", "\\\\"),
)
_FUSION, _INK = "#E69F00", "#222222"
_MAX_ROWS, _MAX_NAME_LENGTH = 40, 24


def print_timeline(plan: Plan) -> "Figure":
    """Return the timeline of one image: a bar for each used device (the 40 slowest) and one for the fusion.

    Each device is labelled with its classes. Save it with `figure.savefig("timeline.png", dpi=160)`.

    Raises:
        PlannerError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PlannerError(
            "Figures need matplotlib, which is not installed: pip install 'vit-planner[report]'."
        ) from None
    frame = times_frame(plan)
    frame = frame[frame["latency_us"] > 0].iloc[:_MAX_ROWS]
    figure = Figure(figsize=(8, 1.3 + 0.38 * (len(frame) + 1)), layout="constrained")
    axes = figure.subplots()
    _draw_bars(axes, plan, frame)
    rows = range(len(frame) + 1)
    # Names are no mathematics, whatever dollars they have.
    axes.set_yticks(rows, _labels(plan, frame), parse_math=False)
    axes.set_xlim(0, plan.latency_us / 1000 * 1.02)
    axes.set_xlabel("time since the image is there [ms]")
    slowest = shorten(plan.bottleneck.device, _MAX_NAME_LENGTH)
    title = f"One image takes {format_time_us(plan.latency_us)}; {slowest} is the bottleneck"
    axes.set_title(title, loc="left", fontweight="bold", parse_math=False)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0), ncols=3, frameon=True, framealpha=0.9, fontsize="small")
    return figure


def _draw_bars(axes: "Axes", plan: Plan, frame: pd.DataFrame) -> None:
    """Draw the parts of each device's time one after the other, and the fusion in a row below."""
    start = 0 * frame["send_us"]
    edges = [2.2 if slowest else 0.6 for slowest in frame["bottleneck"]]
    for column, name, colour, hatch in _PARTS:
        axes.barh(
            range(len(frame)),
            frame[column] / 1000,
            left=start / 1000,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor=_INK,
            linewidth=edges,
            label=name,
        )
        start = start + frame[column]
    fusion_ms, done_ms = plan.fusion.latency_us / 1000, plan.bottleneck.latency_us / 1000
    axes.barh(
        [len(frame)], [fusion_ms], left=done_ms, height=0.62, color=_FUSION, hatch="xx", edgecolor=_INK, linewidth=0.6
    )
    axes.axvline(done_ms, color=_INK, linestyle="--", linewidth=1.2)


def _labels(plan: Plan, frame: pd.DataFrame) -> list[str]:
    classes = {a.device: " ".join(a.classes) for a in plan.assignments}
    labels = [
        f"{shorten(str(name), _MAX_NAME_LENGTH)}: {shorten(classes[str(name)], _MAX_NAME_LENGTH)}"
        for name in frame.index
    ]
    marked = [f"▶ {label}" if slowest else label for label, slowest in zip(labels, frame["bottleneck"], strict=True)]
    return [*marked, f"fusion on {shorten(plan.fusion.device, _MAX_NAME_LENGTH)}"]
