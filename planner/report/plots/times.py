"""The time line of one image over the fleet."""

import pandas as pd
import plotly.graph_objects as go

from planner.report.plan_frames import times_frame
from planner.report.plots.style import (
    BLUE,
    FEW_ROWS,
    HATCH,
    INK,
    MOST_ROWS,
    ORANGE,
    SKY,
    drawn,
    full,
    label,
    rows_axis,
    shown_of,
    strong,
)
from planner.schema import Fleet, Plan, Profile
from planner.units import ms, percent, short

# (column, name, colour, pattern)
_PARTS = (
    ("send_us", "send", SKY, "/"),
    ("compute_us", "compute", BLUE, ""),
    ("return_us", "return", SKY, "\\"),
    ("fusion_us", "fusion", ORANGE, "x"),
)
# A part shorter than this share of the whole has no room for its time.
_LEAST_WITH_TEXT = 0.09


def timeline_plot(plan: Plan, profile: Profile, fleet: Fleet) -> go.Figure:
    """Return what happens when to one image: a row for each used device, the slowest on top; then the fusion."""
    everything = times_frame(plan)
    frame = _shown(everything, plan.fusion.device)
    starts = {
        "send": 0 * frame["send_us"],
        "compute": frame["send_us"],
        "return": frame["send_us"] + frame["compute_us"],
        "fusion": frame["fusion_start_us"],
    }
    traces = [
        _bars(frame, column, name, starts[name], plan.latency_us, {"colour": colour, "pattern": pattern})
        for column, name, colour, pattern in _PARTS
    ]
    few = len(frame) <= FEW_ROWS
    labels = [_label(str(device), row, few) for device, row in frame.iterrows()]
    done_us = plan.bottleneck.latency_us
    line = {"color": INK, "width": 1.5, "dash": "dash"}
    ends = {"x": [done_us / 1000] * 2, "y": [-0.5, len(frame) - 0.5]}
    traces.append(go.Scatter(**ends, mode="lines", line=line, showlegend=False, hoverinfo="skip", name="all there"))
    return drawn(
        traces,
        _title(plan),
        note=f"Dashed: the last features are there, {ms(done_us)}. {shown_of(len(frame), len(everything), 'slowest')}",
        plot_height=70 + len(frame) * (46 if few else 24),
        above=46,
        barmode="overlay",
        xaxis={"title": "time since the image is there [ms]", "range": [0, plan.latency_us / 1000 * 1.02]},
        yaxis=rows_axis(labels),
        legend={"traceorder": "normal"},
    )


def _bars(
    frame: pd.DataFrame, column: str, name: str, start: "pd.Series[float]", whole_us: int, look: dict[str, str]
) -> go.Bar:
    """Return one part of the time of each row that has it."""
    rows = [i for i, us in enumerate(frame[column]) if us > 0]
    part, colour = frame.iloc[rows], look["colour"]
    return go.Bar(
        name=name,
        orientation="h",
        y=rows,
        x=(part[column] / 1000).tolist(),
        base=(start.iloc[rows] / 1000).tolist(),
        width=0.62,
        marker={
            "color": colour,
            "pattern": {"shape": look["pattern"], "bgcolor": colour, "fgcolor": HATCH, "size": 9, "solidity": 0.12},
            "line": {"color": INK, "width": [2.5 if slowest else 0.5 for slowest in part["bottleneck"]]},
        },
        text=[f"{us / 1000:.1f}" if us >= _LEAST_WITH_TEXT * whole_us else "" for us in part[column]],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="none",
        textfont={"color": "white" if colour == BLUE else INK, "size": 12},
        hovertext=[f"{full(str(device))}<br>{name} {ms(us)}" for device, us in part[column].items()],
        hoverinfo="text",
    )


def _shown(frame: pd.DataFrame, fuses: str) -> pd.DataFrame:
    """Return the slowest rows, and the one with the fusion."""
    first = list(frame.index[:MOST_ROWS])
    shown: pd.DataFrame = frame.loc[first if fuses in first else [*first[:-1], fuses]]
    return shown


def _label(device: str, row: "pd.Series[float]", few: bool) -> str:
    name = label(device)
    marked = strong(name) if row["bottleneck"] else name
    second = ms(row["latency_us"]) if row["latency_us"] else "fusion only"
    return f"{marked}<br>{second}" if few else marked


def _title(plan: Plan) -> str:
    slowest = plan.bottleneck
    parts = {"sending": slowest.send_us, "computing": slowest.compute_us, "returning": slowest.return_us}
    most = max(parts, key=lambda part: parts[part])
    share = percent(parts[most] / slowest.latency_us) if slowest.latency_us else "none"
    alone = "does it alone" if len(plan.assignments) == 1 else "is the bottleneck"
    times = f"{ms(slowest.latency_us).removesuffix(' ms')} of {ms(plan.latency_us)}"
    return f"{short(slowest.device, 30)} {alone}: {times}, {share} of it {most}"
