"""Plans and evaluations for the terminal, readable at 80 columns."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.frames import classes_frame, devices_frame, moves_frame, sizes_frame
from planner.schema import Evaluation, Fleet, Plan, Profile


def plan_text(plan: Plan, profile: Profile, fleet: Fleet) -> RenderableType:
    """Return the plan as its headline, a table of devices, and what to know about it."""
    frame = devices_frame(plan, profile, fleet)
    num_heads = profile.num_heads * profile.depth
    num_channels = sum(sum(sizes) for sizes in profile.group_sizes)
    table = _table(f"{fleet.name}: who runs what", "device", "classes", "heads", "channels", "memory", "latency")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, row in frame.iterrows():
        budget = _kib(row["budget_bytes"])
        if not row["classes"]:
            table.add_row(Text(str(name)), Text("idle", style="dim"), "", "", f"- / {budget}", "")
            continue
        table.add_row(
            Text(str(name)),
            Text(_classes(row["classes"])),
            f"{row['heads']:.0f}/{num_heads}",
            f"{row['channels']:.0f}/{num_channels}",
            f"{_kib(row['memory_bytes'])} / {budget}",
            Text(f"{_ms(row['latency_us'])}{' <' if row['bottleneck'] else '  '}"),
            style="bold" if row["bottleneck"] else None,
        )
    slowest = plan.bottleneck
    notes = [
        f"< {slowest.device} is the bottleneck: send {_ms(slowest.send_us)}, compute {_ms(slowest.compute_us)}, "
        f"return {_ms(slowest.return_us)}; then fusion on {plan.fusion.device}, {_ms(plan.fusion.latency_us)}."
    ]
    small = sorted({f"{a.device} {a.precision}" for a in plan.assignments if a.precision not in (None, "float32")})
    if small:
        notes.append(f"Precision other than float32: {', '.join(small)}.")
    if any(a.estimated for a in plan.assignments):
        notes.append("Latencies are estimated from declared MAC rates, not measured.")
    return Group(Text(headline(plan), style="bold"), "", table, *(Text(note) for note in notes))


def headline(plan: Plan) -> str:
    """Return status, objective, bound and gap in one line."""
    shown = {
        "latency": ("latency", _ms(plan.value), _ms(plan.bound)),
        "energy": ("energy", f"{plan.value:.3f} mJ", f"{plan.bound:.3f} mJ"),
        "devices": ("devices", f"{plan.value:.0f}", f"{plan.bound:.0f}"),
        "accuracy": ("lowest retention", f"{plan.value:.3f}", f"{plan.bound:.3f}"),
    }
    name, value, bound = shown[plan.goal.objective]
    latency = "" if plan.goal.objective == "latency" else f", latency {_ms(plan.latency_us)}"
    return (
        f"{plan.status.upper()} plan: {name} {value}, bound {bound}, "
        f"gap {100 * plan.gap:.1f} %{latency} ({plan.goal.method}, {plan.solver.seconds:.1f} s)"
    )


def moves_text(earlier: Plan, plan: Plan, profile: Profile) -> RenderableType:
    """Return what moves between two plans as a table."""
    frame = moves_frame(earlier, plan, profile)
    if frame.empty:
        return Text("Nothing moves: every device keeps its sub-model.")
    total = _kib(frame["bytes_to_send"].sum())
    table = _table(f"What moves: {len(frame)} sub-models, {total} to send", "device", "gains", "loses", "to send")
    for name, row in frame.iterrows():
        size = _kib(row["bytes_to_send"]) if row["bytes_to_send"] else "-"
        table.add_row(Text(str(name)), Text(_classes(row["gains"])), Text(_classes(row["loses"])), size)
    table.columns[-1].justify = "right"
    return table


def evaluation_text(evaluation: Evaluation) -> RenderableType:
    """Return accuracies and sizes as tables."""
    return Group(_accuracy_table(evaluation), "", _missing_table(evaluation), "", _size_table(evaluation))


def _accuracy_table(evaluation: Evaluation) -> Table:
    table = _table(f"Accuracy on the {evaluation.num_images} test images", "class", "whole", "fused", "change")
    frame = classes_frame(evaluation)
    for i, (name, row) in enumerate(frame.iterrows()):
        table.add_row(
            Text(str(name)),
            f"{row['whole']:.1%}",
            f"{row['fused']:.1%}",
            f"{100 * row['change']:+.1f} points",
            style="bold" if i == len(frame) - 1 else None,
            end_section=i == len(frame) - 2,
        )
    return _right(table)


def _missing_table(evaluation: Evaluation) -> Table:
    table = _table("When a device is missing", "without", "fused", "change")
    for name, accuracy in evaluation.without_device.items():
        table.add_row(Text(name), f"{accuracy:.1%}", f"{100 * (accuracy - evaluation.fused_accuracy):+.1f} points")
    return _right(table)


def _size_table(evaluation: Evaluation) -> Table:
    whole = evaluation.whole
    title = f"Size against the whole model: {whole.params:,} params, {whole.macs / 1e6:.2f} M MACs"
    table = _table(title, "device", "params", "of the whole", "MACs", "of the whole")
    frame = sizes_frame(evaluation)
    for i, (name, row) in enumerate(frame.iterrows()):
        table.add_row(
            Text(str(name)),
            f"{row['params']:,.0f}",
            _share(row["params_ratio"]),
            f"{row['macs'] / 1e6:.2f} M",
            _share(row["macs_ratio"]),
            style="bold" if i == len(frame) - 1 else None,
            end_section=i == len(frame) - 2,
        )
    return _right(table)


def _share(ratio: float) -> str:
    """Return what a whole-to-part ratio means, for parts that may be larger than the whole."""
    times = f"{ratio:.1f}x less" if ratio >= 1 else f"{1 / ratio:.1f}x more"
    return f"{1 / ratio:.0%}, {times}"


def _table(title: str, *columns: str) -> Table:
    # A title is wrapped at the table's width.
    table = Table(title=Text(title, style="bold"), title_justify="left", min_width=min(80, len(title) + 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _right(table: Table) -> Table:
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _classes(names: Sequence[str]) -> str:
    """Return class names in a line, the middle of many left out."""
    shown = list(names) if len(names) <= 12 else [*names[:10], f"... ({len(names)})"]
    return " ".join(shown)


def _ms(us: float) -> str:
    return f"{us / 1000:.1f} ms"


def _kib(num_bytes: float) -> str:
    if pd.isna(num_bytes):
        return "-"
    if num_bytes >= 10 * 2**20:
        return f"{num_bytes / 2**20:.0f} MiB"
    return f"{num_bytes / 2**10:.0f} KiB"
