"""Pictures for print and for a README: matplotlib, in the colours and patterns of the plotly ones."""

from typing import TYPE_CHECKING

from planner.errors import PlannerError
from planner.report.plan_frames import times_frame
from planner.schema import Plan
from planner.units import ms, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# (column, name, colour, hatch)
_PARTS = (
    ("send_us", "send", "#8CCBEE", "//"),
    ("compute_us", "compute", "#0072B2", ""),
    ("return_us", "return", "#8CCBEE", "\\\\"),
)
_FUSION, _INK = "#E69F00", "#222222"
_MOST_ROWS = 40


def print_timeline(plan: Plan) -> "Figure":
    """Return what happens when to one image, a bar for each used device (the 40 slowest) and one for the fusion.

    Beside each device are its classes. Save it with `figure.savefig("timeline.png", dpi=160)`.

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
    frame = frame[frame["latency_us"] > 0].iloc[:_MOST_ROWS]
    served = {a.device: " ".join(a.classes) for a in plan.assignments}
    names = [f"{short(str(name), 24)}: {short(served[str(name)], 24)}" for name in frame.index]
    figure = Figure(figsize=(8, 1.3 + 0.38 * (len(frame) + 1)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(frame))
    start = 0 * frame["send_us"]
    edges = [2.2 if slowest else 0.6 for slowest in frame["bottleneck"]]
    for column, name, colour, hatch in _PARTS:
        axes.barh(
            rows,
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
    marked = [f"▶ {name}" if slowest else name for name, slowest in zip(names, frame["bottleneck"], strict=True)]
    axes.set_yticks([*rows, len(frame)], [*marked, f"fusion on {short(plan.fusion.device, 24)}"], parse_math=False)
    axes.set_xlim(0, plan.latency_us / 1000 * 1.02)
    axes.set_xlabel("time since the image is there [ms]")
    slowest = short(plan.bottleneck.device, 24)
    title = f"One image takes {ms(plan.latency_us)}; {slowest} is the bottleneck"
    axes.set_title(title, loc="left", fontweight="bold", parse_math=False)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0), ncols=3, frameon=True, framealpha=0.9, fontsize="small")
    return figure
