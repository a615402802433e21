"""Plots of the planner's time and gap against the numbers of classes, devices, kinds and units."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.solve.child import Result
from benchmarks.solve.compare import OURS
from benchmarks.solve.instances import Size
from benchmarks.solve.jobs import Job, JobResults
from planner.schema.base import write_bytes, write_text

TIME_LIMIT_S = 20.0
# A plan is near the final one when its latency is within this share.
NEAR = 0.01
# Lower limit of the logarithmic time axis: shorter times are drawn here.
_MIN_S = 0.01

# For each sweep the label of its axis, the sizes that stay fixed, and the instances.
SWEEPS: dict[str, tuple[str, str, tuple[tuple[int, Size], ...]]] = {
    "classes": (
        "number of classes",
        "20 devices of 4 kinds, 336 units",
        tuple((n, Size(f"{n} classes", n, 20, 4)) for n in (10, 25, 50, 100, 200, 400)),
    ),
    "devices": (
        "number of devices",
        "100 classes, 4 kinds, 336 units",
        tuple((n, Size(f"{n} devices", 100, n, 4)) for n in (5, 10, 20, 50, 100, 200)),
    ),
    "kinds": (
        "number of device kinds",
        "50 classes, 20 devices, 336 units",
        tuple((n, Size(f"{n} kinds", 50, 20, n)) for n in (1, 2, 3, 5, 7, 10)),
    ),
    "units": (
        "number of heads and channel groups",
        "50 classes, 20 devices of 4 kinds",
        # The same network with coarser or finer heads and channel groups.
        tuple((84 * n, Size(f"{84 * n} units", 50, 20, 4, num_heads=3 * n, num_groups=4 * n)) for n in (1, 2, 4, 8)),
    ),
}

# Okabe and Ito's colours, which the colour-blind can tell apart; markers differ too.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"


@dataclass(frozen=True)
class Point:
    """Result of one run of a sweep; the names of the fields are keys of the file."""

    sweep: str
    value: int
    limit_s: float
    total_s: float | None
    first_s: float | None  # until there was a plan
    near_s: float | None  # until the plan was near the last
    gap: float | None
    latency_ms: float | None
    bound_ms: float | None
    peak_mb: float | None
    note: str


def sweep(store: JobResults, speed_up: float = 1.0) -> list[Point]:
    """Run all sweeps; all time limits are divided by `speed_up`."""
    limit_s = TIME_LIMIT_S / speed_up
    return [
        _point(name, value, limit_s, store.result(Job(size, OURS, limit_s)))
        for name, (_, _, sizes) in SWEEPS.items()
        for value, size in sizes
    ]


def _point(name: str, value: int, limit_s: float, result: Result) -> Point:
    latency_us, bound_us = result.get("latency_us"), result.get("bound_us")
    improvements = [(at, best) for at, best, _ in result.get("events", ()) if best is not None]
    near = None if latency_us is None else [at for at, best in improvements if best <= (1 + NEAR) * latency_us]
    return Point(
        sweep=name,
        value=value,
        limit_s=limit_s,
        total_s=result["seconds"],
        first_s=improvements[0][0] if improvements else None,
        near_s=near[0] if near else None,
        gap=None if latency_us is None else (latency_us - bound_us) / latency_us,
        latency_ms=None if latency_us is None else latency_us / 1000,
        bound_ms=None if bound_us is None else bound_us / 1000,
        peak_mb=result.get("peak_mb"),
        note=result.get("note", ""),
    )


def write_points(points: Sequence[Point], path: Path) -> None:
    """Write the plotted numbers."""
    write_text(path, json.dumps([asdict(point) for point in points], indent=1) + "\n")


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the times above the gaps, one column for each sweep."""
    figure, axes = plt.subplots(2, len(SWEEPS), figsize=(16, 7.5), sharey="row", layout="constrained")
    max_gap = max((100 * p.gap for p in points if p.gap is not None), default=0.0)
    for column, (name, (label, fixed, _)) in enumerate(SWEEPS.items()):
        chosen = [p for p in points if p.sweep == name]
        _draw_times(axes[0, column], chosen)
        axes[0, column].set_title(f"Time to plan, by {name}\n({fixed})", fontsize=9)
        _draw_gaps(axes[1, column], chosen)
        axes[1, column].set_ylim(0, max(1.0, 1.15 * max_gap))
        axes[1, column].set_title(f"Proven gap, by {name}\n({fixed})", fontsize=9)
        for row in (0, 1):
            axes[row, column].set_xlabel(label)
    times = [s for p in points for s in (p.total_s, p.near_s, p.first_s, p.limit_s) if s is not None]
    axes[0, 0].set_ylim(max(_MIN_S, 0.7 * min(times, default=1.0)), 1.5 * max(times, default=1.0))
    axes[0, 0].set_ylabel("time [s]")
    axes[1, 0].set_ylabel("gap (latency - bound) / latency [%]")
    axes[0, 0].legend(fontsize=8, loc="best")
    limit_s = max((p.limit_s for p in points), default=0.0)
    figure.suptitle(
        f"How the planner's time and proven gap grow; ViT-Base, at most {limit_s:g} s of search, one run a point"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    figure.savefig(scratch, dpi=110, format="png")
    plt.close(figure)
    write_bytes(path, scratch.read_bytes())
    scratch.unlink()


def _draw_times(axes: Axes, points: Sequence[Point]) -> None:
    lines = (
        ("total_s", "whole run", "o-", BLUE),
        ("near_s", f"within {NEAR:.0%} of its last latency", "s--", ORANGE),
        ("first_s", "first plan", "^:", GREEN),
    )
    for field, label, style, colour in lines:
        known = [(p.value, getattr(p, field)) for p in points if getattr(p, field) is not None]
        axes.plot([x for x, _ in known], [max(_MIN_S, y) for _, y in known], style, color=colour, label=label)
    if points:
        axes.axhline(points[0].limit_s, color=BLACK, linewidth=0.8, linestyle=(0, (1, 2)), label="time limit")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    _scale(axes, points)


def _draw_gaps(axes: Axes, points: Sequence[Point]) -> None:
    known = [(p.value, 100 * p.gap) for p in points if p.gap is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], "o-", color=BLUE)
    for x, y in known:
        axes.annotate(f"{y:.1f}", (x, y), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
    for p in points:
        if p.gap is None:
            axes.annotate("no plan", (p.value, 0), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
    _scale(axes, points)


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    values = [p.value for p in points] or [1]
    # Logarithmic, since the values grow by factors rather than by steps.
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 1.25, max(values) * 1.25)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
