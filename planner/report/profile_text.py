"""A profile for the terminal, readable at 80 columns."""

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.latency_text import latency_text
from planner.report.profile_frames import (
    costs_frame,
    heads_frame,
    importance_frame,
    pruning_frame,
    widths_frame,
)
from planner.report.text import align_right, make_table, name_text
from planner.rules.accuracy import TAIL, error_quantile
from planner.schema import Profile
from planner.units import count_noun, format_bytes, format_macs, format_share, visible

# Of more classes, those that differ most from the mean are shown.
_MAX_CLASSES = 12
# In more blocks, heads and channels share a number: two would not fit.
_MAX_SPLIT_BLOCKS = 6
_MAX_HEADS = 5
# Predicted loss for which an interval is given.
_EXAMPLE_LOSS = 0.02
# Fewer errors of predictions have no tail of a tenth: the interval would be too narrow.
_MIN_SCORES = round(1 / TAIL) - 1


def profile_text(profile: Profile) -> RenderableType:
    """Return costs, importance by class, the price of pruning, latency tables, and the error of predictions."""
    parts: list[RenderableType] = [
        Text(_headline(profile), style="bold"),
        "",
        _costs_table(profile),
        "",
        _widths_table(profile),
        "",
        _importance_table(profile),
        _heads_note(profile),
        "",
        _pruning_table(profile),
    ]
    for kind, rows in profile.latency.items():
        parts += ["", latency_text(kind, rows)]
    parts += map(Text, prediction_lines(profile))
    parts += [Text(f"{visible(key)}: {visible(text)}.") for key, text in profile.provenance.items()]
    return Group(*parts)


def _headline(profile: Profile) -> str:
    return (
        f"{visible(profile.model)}: {count_noun(len(profile.classes), 'class')}; {profile.depth} blocks of "
        f"{profile.num_heads} heads and {profile.hidden_dim} hidden channels; {profile.num_tokens} tokens"
    )


def _costs_table(profile: Profile) -> Table:
    """Return MACs and weights by part; blocks that cost the same share a row."""
    frame = costs_frame(profile)
    table = make_table("Where the MACs and bytes are (float32)", "part", "MACs", "share", "weights", "share")
    for _, rows in frame.groupby(["part", "units", "macs", "weight_bytes"], sort=False):
        blocks, part, units = rows["block"].tolist(), rows["part"].iloc[0], rows["units"].iloc[0]
        name = "fixed" if part == "fixed" else f"{len(blocks)} x {units} {part}{_block_list(blocks, profile.depth)}"
        table.add_row(
            name,
            format_macs(rows["macs"].sum()),
            f"{rows['macs_share'].sum():.0%}",
            format_bytes(rows["weight_bytes"].sum()),
            f"{rows['bytes_share'].sum():.0%}",
        )
    table.add_section()
    macs, weight_bytes = frame["macs"].sum(), frame["weight_bytes"].sum()
    table.add_row("whole", format_macs(macs), "", format_bytes(weight_bytes), "", style="bold")
    return align_right(table)


def _block_list(blocks: list[int], depth: int) -> str:
    return "" if len(blocks) == depth else f" (blocks {', '.join(map(str, blocks))})"


def _widths_table(profile: Profile) -> Table:
    columns = ("embed dim", "params", "MACs", "activations", "least, mean retention")
    table = make_table("Embed widths, all heads and channels kept", *columns)
    for embed_dim, row in widths_frame(profile).iterrows():
        table.add_row(
            str(embed_dim),
            f"{row['params']:,.0f}",
            format_macs(row["macs"]),
            format_bytes(row["activation_bytes"]),
            f"{row['least_retention']:.2f} to {row['mean_retention']:.2f}",
        )
    return align_right(table)


def _importance_table(profile: Profile) -> Table:
    frame = importance_frame(profile)
    split = profile.depth <= _MAX_SPLIT_BLOCKS
    shares = frame if split else frame.T.groupby(level=0).sum().T  # (C, 2L) or (C, L)
    mean = shares.mean()
    title = f"Which blocks each class needs: share of its importance [%]{', heads + channels' if split else ''}"
    classes = list(frame.index)
    if len(classes) > _MAX_CLASSES:
        distances = (shares - mean).abs().sum(axis=1).sort_values(ascending=False, kind="stable")
        classes = list(distances.index[:_MAX_CLASSES])
        title += f"; the {_MAX_CLASSES} of {len(frame)} classes least like the mean"
    table = make_table(title, "class", *(str(l) for l in range(profile.depth)))
    for name in classes:
        table.add_row(name_text(name), *_importance_cells(shares.loc[name], profile.depth, split))
    table.add_row("mean", *_importance_cells(mean, profile.depth, split), style="bold")
    return align_right(table)


def _importance_cells(shares: "pd.Series[float]", depth: int, split: bool) -> list[str]:
    if not split:
        return [f"{100 * shares[l]:.0f}" for l in range(depth)]
    return [f"{100 * shares[(l, 'heads')]:.0f} + {100 * shares[(l, 'channels')]:.0f}" for l in range(depth)]


def _heads_note(profile: Profile) -> Text:
    frame = heads_frame(profile).sort_values("mean_share", ascending=False, kind="stable").head(_MAX_HEADS)
    if frame.empty:
        return Text("")
    heads = [
        f"{row['mean_share']:.1%} block {l} head {h} (most for {visible(row['neediest'])}, {row['neediest_share']:.1%})"
        for (l, h), row in frame.iterrows()
    ]
    return Text(f"Heads that matter most, by mean share: {'; '.join(heads)}.")


def _pruning_table(profile: Profile) -> Table:
    columns = ("MACs left", "MACs", "weights", "heads", "channels", "least retention", "accuracy")
    table = make_table("What less would cost one sub-model of all classes", *columns)
    for left, row in pruning_frame(profile).iterrows():
        table.add_row(
            f"{left:.0%}",
            format_macs(row["macs"]),
            format_bytes(row["weight_bytes"]),
            f"{row['heads']:.0f}",
            f"{row['channels']:.0f}",
            f"{row['least_retention']:.3f}",
            "-" if pd.isna(row["accuracy"]) else format_share(row["accuracy"], 1),
        )
    return align_right(table)


def has_few_trial_plans(profile: Profile) -> bool:
    """Return whether there are trial plans, but too few to say how far off predictions are."""
    return profile.accuracy_model is not None and len(profile.accuracy_model.scores) < _MIN_SCORES


def prediction_lines(profile: Profile) -> list[str]:
    """Return what predictions of accuracy are worth, in lines of at most 80 columns."""
    model = profile.accuracy_model
    if model is None:
        return ["No trial plan was executed: goals are a min_retention, not an accuracy drop."]
    after = f"after {count_noun(model.epochs, 'epoch')} of retraining" if model.epochs else "without retraining"
    trials = count_noun(len(model.scores), "trial plan")
    lines = [f"Predictions hold {after}; {trials}, unsplit {format_share(1 - model.whole_error, 1)}."]
    if has_few_trial_plans(profile):
        return [*lines, f"So few do not say how far off predictions are: {_MIN_SCORES} trial plans would."]
    low, high = (_EXAMPLE_LOSS + error_quantile(model, _EXAMPLE_LOSS, share) for share in (TAIL, 1 - TAIL))
    between = f"{100 * max(0.0, low):.1f} and {100 * high:.1f}"
    example = f"{100 * _EXAMPLE_LOSS:g} points"
    return [*lines, f"Of plans predicted to lose {example}, four in five lose between {between}."]
