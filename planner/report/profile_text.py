"""A profile as a page for the terminal, readable at 80 columns."""

import math

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.latency import table_text
from planner.report.profile_frames import (
    costs_frame,
    heads_frame,
    less_frame,
    needs_frame,
    widths_frame,
)
from planner.report.text import kib, table, to_right
from planner.schema import Profile

# What fits on a page: more classes are shown by those that differ most from the mean.
_MOST_CLASSES, _MOST_BLOCKS = 12, 6
_MOST_HEADS = 5


def profile_text(profile: Profile) -> RenderableType:
    """Return where the costs are, who needs what, what less would cost, and how far to trust it."""
    parts: list[RenderableType] = [
        Text(_headline(profile), style="bold"),
        "",
        _costs_table(profile),
        "",
        _widths_table(profile),
        "",
        _needs_table(profile),
        _heads_note(profile),
        "",
        _less_table(profile),
    ]
    for kind, rows in profile.latency.items():
        parts += ["", table_text(kind, rows)]
    if profile.recovery:
        parts += ["", _recovery_table(profile)]
    parts += [Text(_trust(profile)), *(Text(f"{key}: {said}.") for key, said in profile.provenance.items())]
    return Group(*parts)


def _headline(profile: Profile) -> str:
    return (
        f"{profile.model}: {len(profile.classes)} classes; {profile.depth} blocks of {profile.num_heads} heads and "
        f"{profile.hidden_dim} hidden channels; {profile.num_tokens} tokens"
    )


def _costs_table(profile: Profile) -> Table:
    """Blocks that cost the same, as they do unless a profile says otherwise, share a row."""
    frame = costs_frame(profile)
    shown = table("Where the MACs and bytes are (float32)", "part", "MACs", "share", "weights", "share")
    for _, rows in frame.groupby(["part", "units", "macs", "weight_bytes"], sort=False):
        blocks, part, units = rows["block"].tolist(), rows["part"].iloc[0], rows["units"].iloc[0]
        name = "fixed" if part == "fixed" else f"{len(blocks)} x {units} {part}{_range(blocks, profile.depth)}"
        shown.add_row(
            name,
            _macs(rows["macs"].sum()),
            f"{rows['macs_share'].sum():.0%}",
            kib(rows["weight_bytes"].sum()),
            f"{rows['bytes_share'].sum():.0%}",
        )
    shown.add_section()
    shown.add_row("whole", _macs(frame["macs"].sum()), "", kib(frame["weight_bytes"].sum()), "", style="bold")
    return to_right(shown)


def _range(blocks: list[int], depth: int) -> str:
    return "" if len(blocks) == depth else f" (blocks {', '.join(map(str, blocks))})"


def _widths_table(profile: Profile) -> Table:
    shown = table(
        "Embed widths, all heads and channels kept", "embed dim", "params", "MACs", "activations", "retention"
    )
    for embed_dim, row in widths_frame(profile).iterrows():
        shown.add_row(
            str(embed_dim),
            f"{row['params']:,.0f}",
            _macs(row["macs"]),
            kib(row["activation_bytes"]),
            f"{row['least_retention']:.2f} to {row['mean_retention']:.2f}",
        )
    shown.columns[-1].header = "least, mean retention"
    return to_right(shown)


def _needs_table(profile: Profile) -> Table:
    frame = needs_frame(profile)
    shown_blocks = profile.depth <= _MOST_BLOCKS
    by_block = frame.T.groupby(level=0).sum().T  # (C, L)
    both = frame if shown_blocks else by_block
    mean = both.mean()
    classes = list(frame.index)
    title = "Which blocks each class needs: share of its importance [%], heads + channels"
    if not shown_blocks:
        title = "Which blocks each class needs: share of its importance [%]"
    if len(classes) > _MOST_CLASSES:
        unlike = (both - mean).abs().sum(axis=1).sort_values(ascending=False, kind="stable")
        classes = list(unlike.index[:_MOST_CLASSES])
        title += f"; the {_MOST_CLASSES} of {len(frame)} classes least like the mean"
    shown = table(title, "class", *(str(l) for l in range(profile.depth)))
    rows = [(str(name), both.loc[name]) for name in classes]
    for name, values in [*rows, ("mean", mean)]:
        cells = [_percent(values, l, shown_blocks) for l in range(profile.depth)]
        shown.add_row(Text(name), *cells, style="bold" if name == "mean" and values is mean else None)
    return to_right(shown)


def _percent(values: "pd.Series[float]", block: int, halves: bool) -> str:
    if not halves:
        return f"{100 * values[block]:.0f}"
    return f"{100 * values[(block, 'heads')]:.0f} + {100 * values[(block, 'channels')]:.0f}"


def _heads_note(profile: Profile) -> Text:
    frame = heads_frame(profile).sort_values("mean_share", ascending=False, kind="stable").head(_MOST_HEADS)
    if frame.empty:
        return Text("")
    said = [
        f"{row['mean_share']:.1%} block {l} head {h} (most for {row['neediest']}, {row['neediest_share']:.1%})"
        for (l, h), row in frame.iterrows()
    ]
    return Text(f"Heads that matter most, by mean share: {'; '.join(said)}.")


def _less_table(profile: Profile) -> Table:
    shown = table(
        "What less would cost one sub-model of all classes",
        "MACs left",
        "MACs",
        "weights",
        "heads",
        "channels",
        "least retention",
        "accuracy",
    )
    for left, row in less_frame(profile).iterrows():
        accuracy = "-" if pd.isna(row["accuracy"]) else f"{row['accuracy']:.1%}"
        shown.add_row(
            f"{left:.0%}",
            _macs(row["macs"]),
            kib(row["weight_bytes"]),
            f"{row['heads']:.0f}",
            f"{row['channels']:.0f}",
            f"{row['least_retention']:.3f}",
            accuracy,
        )
    return to_right(shown)


def _recovery_table(profile: Profile) -> Table:
    counts = sorted({1, 2, len(profile.classes) // 2, len(profile.classes)} - {0})
    columns = (f"{n} class{'es' * (n > 1)}" for n in counts)
    shown = table("Retention floors by accuracy that may be lost", "drop", *columns, "class needs")
    for row in profile.recovery:
        floors = (f"{row.by_count[n - 1]:.2f}" for n in counts)
        needs = f"{min(row.class_need):.2f} to {max(row.class_need):.2f}"
        points = 100 * row.max_accuracy_drop
        shown.add_row(f"{points:g} point{'s' * (points != 1)}", *floors, needs)
    return to_right(shown)


def _trust(profile: Profile) -> str:
    model = profile.fused_accuracy
    if model is None:
        return "No fused accuracy was probed: floors are retentions (--min-retention)."
    whole = "" if model.whole_error is None else f"; the whole model errs in {model.whole_error:.1%}"
    return (
        f"Predicted errors are off by a factor of {math.exp(model.log_error):.2f} (each of {model.num_probes} "
        f"probes predicted from the others){whole}."
    )


def _macs(macs: float) -> str:
    return f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.2f} M"
