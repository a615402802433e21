"""Timeline of one image over the fleet."""

import pandas as pd
import plotly.graph_objects as go

from planner.report.plan_frames import times_frame
from planner.report.plots.style import (
    BLUE,
    HATCH,
    INK,
    MAX_DETAILED_ROWS,
    MAX_ROWS,
    ORANGE,
    SKY,
    axis_label,
    hover_name,
    make_figure,
    mark_bottleneck,
    omission_note,
    rows_axis,
)
from planner.schema import Fleet, Plan, Profile
from planner.units import format_ms, format_share, format_time_us, shorten

# (column, name, colour, pattern)
_PARTS = (
    ("send_us", "send", SKY, "/"),
    ("compute_us", "compute", BLUE, ""),
    ("return_us", "return", SKY, "\\"),
    ("fusion_us", "fusion", ORANGE, "x"),
)
# A bar shorter than this share of the whole has no room for its time.
_MIN_SHARE_WITH_TEXT = 0.09


def timeline_plot(plan: Plan, profile: Profile, fleet: Fleet) -> go.Figure:
    """Return a timeline of one image: a row for each used device, the slowest on top, and the fusion after them."""
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
    detailed = len(frame) <= MAX_DETAILED_ROWS
    labels = [_label(str(device), row, detailed) for device, row in frame.iterrows()]
    done_us = plan.bottleneck.latency_us
    line = {"color": INK, "width": 1.5, "dash": "dash"}
    ends = {"x": [done_us / 1000] * 2, "y": [-0.5, len(frame) - 0.5]}
    traces.append(go.Scatter(**ends, mode="lines", line=line, showlegend=False, hoverinfo="skip", name="all there"))
    dashed = f"Dashed: the last features are there, {format_time_us(done_us)}."
    return make_figure(
        traces,
        _title(plan),
        note=f"{dashed} {omission_note(len(frame), len(everything), 'slowest')}",
        plot_height=70 + len(frame) * (46 if detailed else 24),
        above=46,
        # Each bar has its own start, so nothing is to be stacked.
        barmode="overlay",
        xaxis={"title": "time since the image is there [ms]", "range": [0, plan.latency_us / 1000 * 1.02]},
        yaxis=rows_axis(labels),
        legend={"traceorder": "normal"},
    )


def _bars(
    frame: pd.DataFrame, column: str, name: str, start: "pd.Series[float]", whole_us: int, look: dict[str, str]
) -> go.Bar:
    """Return bars of one part of the time, for the rows that have it."""
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
        text=[format_ms(us) if us >= _MIN_SHARE_WITH_TEXT * whole_us else "" for us in part[column]],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="none",
        textfont={"color": "white" if colour == BLUE else INK, "size": 12},
        hovertext=[f"{hover_name(str(device))}<br>{name} {format_time_us(us)}" for device, us in part[column].items()],
        hoverinfo="text",
    )


def _shown(frame: pd.DataFrame, fusion_device: str) -> pd.DataFrame:
    """Return the slowest rows, and the one with the fusion."""
    first = list(frame.index[:MAX_ROWS])
    shown: pd.DataFrame = frame.loc[first if fusion_device in first else [*first[:-1], fusion_device]]
    return shown


def _label(device: str, row: "pd.Series[float]", detailed: bool) -> str:
    name = axis_label(device)
    marked = mark_bottleneck(name) if row["bottleneck"] else name
    second = format_time_us(row["latency_us"]) if row["latency_us"] else "fusion only"
    return f"{marked}<br>{second}" if detailed else marked


def _title(plan: Plan) -> str:
    slowest = plan.bottleneck
    parts = {"sending": slowest.send_us, "computing": slowest.compute_us, "returning": slowest.return_us}
    longest = max(parts, key=lambda part: parts[part])
    share = format_share(parts[longest] / slowest.latency_us) if slowest.latency_us else "none"
    alone = "does it alone" if len(plan.assignments) == 1 else "is the bottleneck"
    times = f"{format_ms(slowest.latency_us)} of {format_time_us(plan.latency_us)}"
    return f"{shorten(slowest.device, 30)} {alone}: {times}, {share} of it {longest}"
