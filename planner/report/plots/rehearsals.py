"""Rehearsal: predicted beside measured latency of each device and of the whole answer."""

import plotly.graph_objects as go

from planner.report.plots.style import (
    BLUE,
    INK,
    MAX_DETAILED_ROWS,
    MAX_ROWS,
    PALE,
    axis_label,
    hover_name,
    make_figure,
    omission_note,
    rows_axis,
)
from planner.report.rehearsal_text import change_text, held_text, rehearsal_headline
from planner.schema import Rehearsal, Step
from planner.units import format_time_us

_WHOLE = "whole answer"


def rehearsal_plot(rehearsal: Rehearsal) -> go.Figure:
    """Return predicted and measured latency: a row for each device, the slowest on top, and one for the answer."""
    devices = sorted(rehearsal.devices, key=lambda d: -_longest_us(d.latency))
    rows = [*((d.device, d.latency) for d in devices[: MAX_ROWS - 1]), (_WHOLE, rehearsal.latency)]
    hover = [_hover(name, step) for name, step in rows]
    detailed = len(rows) <= MAX_DETAILED_ROWS
    predicted = [(i, step.predicted_us / 1000) for i, (_, step) in enumerate(rows) if step.predicted_us is not None]
    measured = [(i, step.measured_us) for i, (_, step) in enumerate(rows) if step.measured_us is not None]
    planned = go.Bar(
        name="predicted",
        orientation="h",
        y=[i for i, _ in predicted],
        x=[ms for _, ms in predicted],
        width=0.7,
        marker={"color": PALE, "line": {"color": INK, "width": 1}},
        hovertext=[hover[i] for i, _ in predicted],
        hoverinfo="text",
    )
    medians = go.Bar(
        name="measured: median, 10th to 99th percentile",
        orientation="h",
        y=[i for i, _ in measured],
        x=[m.p50 / 1000 for _, m in measured],
        width=0.36,
        marker={"color": BLUE},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [(m.p99 - m.p50) / 1000 for _, m in measured],
            "arrayminus": [(m.p50 - m.p10) / 1000 for _, m in measured],
            "color": INK,
            "thickness": 1.5,
            "width": 5,
        },
        hovertext=[hover[i] for i, _ in measured],
        hoverinfo="text",
    )
    return make_figure(
        [planned, medians],
        rehearsal_headline(rehearsal),
        note=f"{held_text(rehearsal)} {omission_note(len(rows) - 1, len(devices), 'slowest')}".strip(),
        plot_height=70 + len(rows) * (46 if detailed else 24),
        above=30,
        barmode="overlay",
        xaxis={"title": "latency [ms]", "rangemode": "tozero"},
        yaxis=rows_axis([_label(name, step, detailed) for name, step in rows]),
        legend={"traceorder": "normal"},
    )


def _longest_us(step: Step) -> float:
    return max(step.predicted_us or 0, 0 if step.measured_us is None else step.measured_us.p50)


def _label(name: str, step: Step, detailed: bool) -> str:
    label = f"<b>{name}</b>" if name == _WHOLE else axis_label(name)
    second = change_text(step) or ("not measured" if step.measured_us is None else "not predicted")
    return f"{label}<br>{second}" if detailed else label


def _hover(name: str, step: Step) -> str:
    predicted = "-" if step.predicted_us is None else format_time_us(step.predicted_us)
    text = f"{hover_name(name)}<br>predicted {predicted}"
    if (m := step.measured_us) is None:
        return text
    return (
        f"{text}<br>measured {format_time_us(m.p50)} (10th percentile {format_time_us(m.p10)}, 99th "
        f"{format_time_us(m.p99)})"
    )
