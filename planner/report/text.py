"""Plans and evaluations for the terminal, readable at 80 columns."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.frames import classes_frame, devices_frame, sizes_frame
from planner.rules.diff import diff_frame
from planner.schema import Evaluation, Fleet, Plan, PredictedAccuracy, Profile


def plan_text(plan: Plan, profile: Profile, fleet: Fleet) -> RenderableType:
    """Return the plan as its headline, a table of devices, and what to know about it."""
    frame = devices_frame(plan, profile, fleet)
    num_heads = profile.num_heads * profile.depth
    num_channels = sum(sum(sizes) for sizes in profile.group_sizes)
    shown = table(f"{fleet.name}: who runs what", "device", "classes", "heads", "channels", "memory", "latency")
    for column in shown.columns[2:]:
        column.justify = "right"
    for name, row in frame.iterrows():
        budget = kib(row["budget_bytes"])
        if not row["classes"]:
            shown.add_row(Text(str(name)), Text("idle", style="dim"), "", "", f"- / {budget}", "")
            continue
        shown.add_row(
            Text(str(name)),
            Text(class_names(row["classes"])),
            f"{row['heads']:.0f}/{num_heads}",
            f"{row['channels']:.0f}/{num_channels}",
            f"{kib(row['memory_bytes'])} / {budget}",
            Text(f"{ms(row['latency_us'])}{' <' if row['bottleneck'] else '  '}"),
            style="bold" if row["bottleneck"] else None,
        )
    slowest = plan.bottleneck
    notes = [
        f"< {slowest.device} is the bottleneck: send {ms(slowest.send_us)}, compute {ms(slowest.compute_us)}, "
        f"return {ms(slowest.return_us)}; then fusion on {plan.fusion.device}, {ms(plan.fusion.latency_us)}."
    ]
    widest = max(width.embed_dim for width in profile.widths)
    narrow = [f"{a.device} {a.embed_dim}" for a in plan.assignments if a.embed_dim < widest]
    if narrow:
        notes.append(f"Embed dims other than {widest}: {', '.join(narrow)}.")
    small = sorted({f"{a.device} {a.precision}" for a in plan.assignments if a.precision not in (None, "float32")})
    if small:
        notes.append(f"Precision other than float32: {', '.join(small)}.")
    if plan.predicted_accuracy is not None:
        notes.append(accuracy_line(plan.predicted_accuracy, profile))
    if any(a.estimated for a in plan.assignments):
        notes.append("Latencies are estimated from declared MAC rates, not measured.")
    return Group(Text(headline(plan), style="bold"), "", shown, *(Text(note) for note in notes))


def accuracy_line(predicted: PredictedAccuracy, profile: Profile) -> str:
    """Return what a plan's fused accuracy is predicted to be, and the whole model's, in one line."""
    whole_error = None if profile.fused_accuracy is None else profile.fused_accuracy.whole_error
    whole = "" if whole_error is None else f"; unsplit {1 - whole_error:.1%}"
    points = 100 * predicted.error
    return f"Predicted fused accuracy {predicted.accuracy:.1%}, give or take {points:.1f} points{whole}."


def headline(plan: Plan) -> str:
    """Return status, objective, bound and gap in one line."""
    shown = {
        "latency": ("latency", ms(plan.value), ms(plan.bound)),
        "energy": ("energy", f"{plan.value:.3f} mJ", f"{plan.bound:.3f} mJ"),
        "devices": ("devices", f"{plan.value:.0f}", f"{plan.bound:.0f}"),
        "accuracy": ("lowest retention", f"{plan.value:.3f}", f"{plan.bound:.3f}"),
    }
    name, value, bound = shown[plan.goal.objective]
    latency = "" if plan.goal.objective == "latency" else f", latency {ms(plan.latency_us)}"
    return (
        f"{plan.status.upper()} plan: {name} {value}, bound {bound}, "
        f"gap {100 * plan.gap:.1f} %{latency} ({plan.goal.method}, {plan.solver.seconds:.1f} s)"
    )


def moves_text(earlier: Plan, plan: Plan, profile: Profile) -> RenderableType:
    """Return what moves between two plans as a table."""
    frame = diff_frame(earlier, plan, profile)
    if frame.empty:
        return Text("Nothing moves: every device keeps its sub-model.")
    total = kib(frame["bytes_to_send"].sum())
    shown = table(f"What moves: {len(frame)} sub-models, {total} to send", "device", "gains", "loses", "to send")
    for name, row in frame.iterrows():
        size = kib(row["bytes_to_send"]) if row["bytes_to_send"] else "-"
        same = size != "-" and not (row["gains"] or row["loses"])
        gains = Text("other sub-model", style="dim") if same else Text(class_names(row["gains"]))
        shown.add_row(Text(str(name)), gains, Text(class_names(row["loses"])), size)
    shown.columns[-1].justify = "right"
    return shown


def evaluation_text(evaluation: Evaluation) -> RenderableType:
    """Return accuracies and sizes as tables."""
    return Group(_accuracy_table(evaluation), "", _missing_table(evaluation), "", _size_table(evaluation))


def _accuracy_table(evaluation: Evaluation) -> Table:
    shown = table(f"Accuracy on the {evaluation.num_images} test images", "class", "whole", "fused", "change")
    frame = classes_frame(evaluation)
    for i, (name, row) in enumerate(frame.iterrows()):
        shown.add_row(
            Text(str(name)),
            f"{row['whole']:.1%}",
            f"{row['fused']:.1%}",
            f"{100 * row['change']:+.1f} points",
            style="bold" if i == len(frame) - 1 else None,
            end_section=i == len(frame) - 2,
        )
    return to_right(shown)


def _missing_table(evaluation: Evaluation) -> Table:
    shown = table("When a device is missing", "without", "fused", "change", "worst class", "it keeps")
    for name, accuracy in evaluation.without_device.items():
        change = f"{100 * (accuracy - evaluation.fused_accuracy):+.1f} points"
        # A class that is never right has nothing to lose.
        had = {c: share for c, share in evaluation.fused_by_class.items() if share}
        kept = {c: evaluation.without_device_by_class[name][c] / share for c, share in had.items()}
        worst = min(kept, key=lambda c: kept[c], default=None)
        row = ("-", "-") if worst is None else (worst, f"{kept[worst]:.0%} of {had[worst]:.1%}")
        shown.add_row(Text(name), f"{accuracy:.1%}", change, Text(row[0]), row[1])
    return to_right(shown)


def _size_table(evaluation: Evaluation) -> Table:
    whole = evaluation.whole
    title = f"Size against the whole model: {whole.params:,} params, {whole.macs / 1e6:.2f} M MACs"
    shown = table(title, "device", "params", "of the whole", "MACs", "of the whole")
    frame = sizes_frame(evaluation)
    for i, (name, row) in enumerate(frame.iterrows()):
        shown.add_row(
            Text(str(name)),
            f"{row['params']:,.0f}",
            _share(row["params_ratio"]),
            f"{row['macs'] / 1e6:.2f} M",
            _share(row["macs_ratio"]),
            style="bold" if i == len(frame) - 1 else None,
            end_section=i == len(frame) - 2,
        )
    return to_right(shown)


def _share(ratio: float) -> str:
    """Return what a whole-to-part ratio means, for parts that may be larger than the whole."""
    times = f"{ratio:.1f}x less" if ratio >= 1 else f"{1 / ratio:.1f}x more"
    return f"{1 / ratio:.0%}, {times}"


def table(title: str, *columns: str) -> Table:
    """Return an empty table whose title is not wrapped below 80 columns."""
    # A title is wrapped at the table's width.
    made = Table(title=Text(title, style="bold"), title_justify="left", min_width=min(80, len(title) + 1))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def to_right(shown: Table) -> Table:
    """Put all columns but the first to the right, as numbers are read."""
    for column in shown.columns[1:]:
        column.justify = "right"
    return shown


def class_names(names: Sequence[str]) -> str:
    """Return class names in a line, the middle of many left out."""
    shown = list(names) if len(names) <= 12 else [*names[:10], f"... ({len(names)})"]
    return " ".join(shown)


def ms(us: float) -> str:
    return f"{us / 1000:.1f} ms"


def kib(num_bytes: float) -> str:
    """Return a size in KiB or MiB; a dash for none."""
    if pd.isna(num_bytes):
        return "-"
    if num_bytes >= 10 * 2**20:
        return f"{num_bytes / 2**20:.0f} MiB"
    return f"{num_bytes / 2**10:.0f} KiB"
