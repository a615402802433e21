"""Plans and evaluations for the terminal, readable at 80 columns."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.frames import classes_frame, devices_frame, sizes_frame
from planner.rules.diff import diff_frame
from planner.schema import Evaluation, Fleet, Plan, PredictedAccuracy, Profile
from planner.units import (
    OBJECTIVE_NAMES,
    count_noun,
    format_bytes,
    format_macs,
    format_objective,
    format_points,
    format_share,
    format_time_us,
    visible,
)

# Of more classes than this, a cell names the first and counts the rest.
_MAX_CLASSES, _NUM_NAMED = 12, 10
# Of more devices in use than this, the slowest have a row, and more idle ones than that are counted.
_MAX_ROWS, MAX_IDLE_ROWS = 200, 24


def plan_text(plan: Plan, profile: Profile, fleet: Fleet) -> RenderableType:
    """Return a plan as its headline, a table of devices, and notes."""
    frame, stored = devices_frame(plan, profile, fleet), fleet.has_storage
    num_heads = profile.num_heads * profile.depth
    num_channels = sum(sum(sizes) for sizes in profile.group_sizes)
    table = make_table(
        f"{visible(fleet.name)}: who runs what",
        *("device", "classes", "heads", "channels", "memory\nstorage" if stored else "memory", "latency"),
    )
    for column in table.columns[2:]:
        # Names are folded before numbers are.
        column.justify, column.no_wrap = "right", True
    for name, row in frame.loc[_shown(plan)].iterrows():
        budgets = "\n".join(" / ".join(pair) for pair in budget_texts(row))
        if not row["classes"]:
            table.add_row(name_text(name), Text("idle", style="dim"), "", "", budgets, "")
            continue
        table.add_row(
            name_text(name),
            Text(join_classes(row["classes"])),
            f"{row['heads']:.0f}/{num_heads}",
            f"{row['channels']:.0f}/{num_channels}",
            budgets,
            Text(f"{format_time_us(row['latency_us'])}{' <' if row['bottleneck'] else '  '}"),
            style="bold" if row["bottleneck"] else None,
        )
    notes = [*_left_out(plan, fleet), *_notes(plan, profile)]
    return Group(Text(headline(plan), style="bold"), "", table, *map(Text, notes))


def _shown(plan: Plan) -> list[str]:
    """Return the devices that have a row, in the plan's order."""
    slowest = sorted(plan.assignments, key=lambda a: -a.latency_us)[:_MAX_ROWS]
    shown = {a.device for a in slowest}.union(plan.idle if len(plan.idle) <= MAX_IDLE_ROWS else ())
    return [name for name in (*(a.device for a in plan.assignments), *plan.idle) if name in shown]


def _left_out(plan: Plan, fleet: Fleet) -> Iterator[str]:
    """Yield a line for the devices that have no row."""
    if len(plan.assignments) > _MAX_ROWS:
        yield f"{len(plan.assignments) - _MAX_ROWS:,} more devices are in use, none of them slower."
    yield from idle_lines(plan, fleet)


def idle_lines(plan: Plan, fleet: Fleet) -> tuple[str, ...]:
    """Return the number of idle devices of each kind, if they are too many to be listed."""
    if len(plan.idle) <= MAX_IDLE_ROWS:
        return ()
    idle = set(plan.idle)
    kinds = Counter(member.kind or "of no kind" for member in fleet.members if member.name in idle)
    each = ", ".join(f"{number:,} {visible(kind)}" for kind, number in kinds.most_common())
    return (f"{len(idle):,} more devices are idle: {each}.",)


def budget_texts(row: "pd.Series[Any]") -> Iterator[tuple[str, str]]:
    """Yield what is used of each budget of a device, and the budget, from a row of `devices_frame`."""
    for used, budget in (("memory_bytes", "budget_bytes"), ("storage_bytes", "storage_budget_bytes")):
        if not pd.isna(row[budget]):
            yield "-" if pd.isna(row[used]) else format_bytes(row[used]), format_bytes(row[budget])


def _notes(plan: Plan, profile: Profile) -> list[str]:
    slowest = plan.bottleneck
    notes = [
        f"< {visible(slowest.device)} is the bottleneck: send {format_time_us(slowest.send_us)}, "
        f"compute {format_time_us(slowest.compute_us)}, return {format_time_us(slowest.return_us)}; "
        f"then fusion on {visible(plan.fusion.device)}, {format_time_us(plan.fusion.latency_us)}."
    ]
    widest = max(width.embed_dim for width in profile.widths)
    narrower = [(a.device, str(a.embed_dim)) for a in plan.assignments if a.embed_dim < widest]
    if narrower:
        notes.append(f"Embed dims other than {widest}: {_each(narrower)}.")
    lower = [(a.device, a.precision) for a in plan.assignments if a.precision not in (None, "float32")]
    if lower:
        notes.append(f"Precision other than float32: {_each(sorted(lower))}.")
    if plan.predicted_accuracy is not None:
        notes.append(accuracy_line(plan.predicted_accuracy, profile))
    if plan.retention_floor is not None:
        notes.append(floors_line(plan))
    if any(a.estimated for a in plan.assignments):
        notes.append("Latencies are estimated from declared MAC rates, not measured.")
    return notes


def _each(pairs: Sequence[tuple[str, str | None]]) -> str:
    """Return a value of each device, or the number of devices of each value where they are too many to be listed."""
    if len(pairs) <= MAX_IDLE_ROWS:
        return ", ".join(f"{visible(device)} {value}" for device, value in pairs)
    counts = Counter(value for _, value in pairs)
    return ", ".join(f"{value} on {number:,} devices" for value, number in counts.most_common())


def accuracy_line(predicted: PredictedAccuracy, profile: Profile) -> str:
    """Return a plan's predicted fused accuracy, its interval, and the whole model's, in one line."""
    accuracy, low, high = (format_share(x, 1) for x in (predicted.accuracy, predicted.low, predicted.high))
    whole = (
        "" if profile.accuracy_model is None else f"; unsplit {format_share(1 - profile.accuracy_model.whole_error, 1)}"
    )
    after = f"after {count_noun(predicted.epochs, 'epoch')}" if predicted.epochs else "without retraining"
    return f"Predicted accuracy {accuracy} ({low} to {high}) {after}{whole}."


def floors_line(plan: Plan) -> str:
    """Return the retention floors that the solver set, and what is proven for any others, in one line."""
    floors = f"retention floors of {plan.retention_floor:.2f}"
    if plan.goal_bound_us is None:
        return f"Each class is protected by {floors}; the bound holds for any."
    return f"Bound at {floors}; no plan within the drop takes under {format_time_us(plan.goal_bound_us)}."


def headline(plan: Plan) -> str:
    """Return status, objective, bound and gap in one line."""
    objective = plan.goal.objective
    value, bound = format_objective(objective, plan.value), format_objective(objective, plan.bound)
    latency = "" if objective == "latency" else f", latency {format_time_us(plan.latency_us)}"
    return (
        f"{plan.status.upper()} plan: {OBJECTIVE_NAMES[objective]} {value}, bound {bound}, "
        f"gap {format_share(plan.gap, 1)}{latency} ({_method(plan)}{plan.solver.seconds:.1f} s)"
    )


def _method(plan: Plan) -> str:
    """Return the method that found a plan, with a comma; nothing where an older plan does not say which."""
    baseline = None if plan.goal.method == "exact" else plan.goal.method
    method = plan.solver.method or baseline
    return "" if method is None else f"{method}, "


def moves_text(earlier: Plan, plan: Plan, profile: Profile) -> RenderableType:
    """Return a table of the sub-models that change from an earlier plan to this one."""
    frame = diff_frame(earlier, plan, profile)
    if frame.empty:
        return Text("Nothing moves: every device keeps its sub-model.")
    total = format_bytes(frame["bytes_to_send"].sum())
    table = make_table(f"What moves: {len(frame)} sub-models, {total} to send", "device", "gains", "loses", "to send")
    for name, row in frame.iterrows():
        to_send = format_bytes(row["bytes_to_send"]) if row["bytes_to_send"] else "-"
        # Other units for the same classes: nothing is gained or lost, but there are weights to send.
        same_classes = row["bytes_to_send"] and not (row["gains"] or row["loses"])
        gains = Text("other sub-model", style="dim") if same_classes else Text(join_classes(row["gains"]))
        table.add_row(name_text(name), gains, Text(join_classes(row["loses"])), to_send)
    table.columns[-1].justify = "right"
    return table


def evaluation_text(evaluation: Evaluation) -> RenderableType:
    """Return accuracies and sizes as tables."""
    parts: list[RenderableType] = [_accuracy_table(evaluation)]
    if others := evaluation.num_calibration_images:
        parts.append(f"The other {others:,} images of the test part calibrate predictions.")
    # Without its only device, nothing is left.
    missing: list[RenderableType] = ["", _missing_table(evaluation)] if len(evaluation.devices) > 1 else []
    return Group(*parts, *missing, "", _size_table(evaluation))


def _accuracy_table(evaluation: Evaluation) -> Table:
    table = make_table(f"Accuracy on the {evaluation.num_images} test images", "class", "whole", "fused", "change")
    frame = classes_frame(evaluation)
    for i, (name, row) in enumerate(frame.iterrows()):
        table.add_row(
            name_text(name),
            format_share(row["whole"], 1),
            format_share(row["fused"], 1),
            format_points(row["change"], signed=True),
            style="bold" if i == len(frame) - 1 else None,
            end_section=i == len(frame) - 2,
        )
    return align_right(table)


def _missing_table(evaluation: Evaluation) -> Table:
    table = make_table("When a device is missing", "without", "fused", "change", "worst class", "it keeps")
    for name, accuracy in evaluation.without_device.items():
        change = format_points(accuracy - evaluation.fused_accuracy, signed=True)
        # A class that is never right has nothing to lose.
        before = {c: share for c, share in evaluation.fused_by_class.items() if share}
        kept = {c: evaluation.without_device_by_class[name][c] / share for c, share in before.items()}
        worst = min(kept, key=lambda c: kept[c], default=None)
        row = ("-", "-") if worst is None else (worst, f"{kept[worst]:.0%} of {format_share(before[worst], 1)}")
        table.add_row(name_text(name), format_share(accuracy, 1), change, name_text(row[0]), row[1])
    return align_right(table)


def _size_table(evaluation: Evaluation) -> Table:
    whole = evaluation.whole
    title = f"Size against the whole model: {whole.params:,} params, {format_macs(whole.macs)} MACs"
    table = make_table(title, "device", "params", "of the whole", "MACs", "of the whole")
    frame = sizes_frame(evaluation)
    for i, (name, row) in enumerate(frame.iterrows()):
        table.add_row(
            name_text(name),
            f"{row['params']:,.0f}",
            _part_of_whole(row["params_ratio"]),
            format_macs(row["macs"]),
            _part_of_whole(row["macs_ratio"]),
            style="bold" if i == len(frame) - 1 else None,
            end_section=i == len(frame) - 2,
        )
    return align_right(table)


def _part_of_whole(ratio: float) -> str:
    """Return a whole-to-part ratio in words, for parts that may be larger than the whole."""
    times = f"{ratio:.1f}x less" if ratio >= 1 else f"{1 / ratio:.1f}x more"
    return f"{1 / ratio:.0%}, {times}"


def make_table(title: str, *columns: str) -> Table:
    """Return an empty table whose title is not wrapped below 80 columns."""
    # rich wraps a title at its table's width.
    table = Table(title=Text(title, style="bold"), title_justify="left", min_width=min(80, len(title) + 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def align_right(table: Table) -> Table:
    """Align all columns but the first to the right, as numbers are read."""
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def name_text(name: object) -> Text:
    """Return a name as a cell, in which rich sees no markup."""
    return Text(visible(str(name)))


def join_classes(names: Sequence[str]) -> str:
    """Return visible class names in a line, with the end of many left out."""
    shown = names if len(names) <= _MAX_CLASSES else names[:_NUM_NAMED]
    # Names of several words would run together.
    text = (", " if any(" " in name for name in shown) else " ").join(map(visible, shown))
    return text if shown is names else f"{text} ... ({len(names)})"
