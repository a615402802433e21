"""Page of predicted beside measured losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.truth.subjects import Subject

_INTRODUCTION = """# Predicted and measured accuracy

Every model is profiled the documented way (`planner profile`), planned for on three fleets with three allowed losses
(`planner solve --max-accuracy-drop`), executed for as long as its predictions hold (`planner execute`) and tested
(`planner evaluate`). Sub-models learn from the training part; predictions are calibrated on half of the test
part, at most 4,000 images; what is measured here is the other half, which decided nothing. Losses are against the whole
model on the same images, in points. `make bench-truth`.

Beside each plan: the fastest board alone, pruned to the same latency by `--objective accuracy`, and the plans of both
baselines at that latency, executed in the same way. Empty cells were not run yet.
"""
_HEAD = (
    "| fleet | allowed | latency [ms] | boards | predicted (80 %) | measured, by seed | one board | greedy | random |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def page(results_of: Mapping[str, list[dict[str, Any]]], subjects: Sequence[Subject]) -> str:
    """Return the page of all results, which are given by model."""
    sections, everything = [], []
    for subject in subjects:
        if not (results := results_of.get(subject.name, [])):
            continue
        sections.append(_section(subject, results))
        everything += [r["result"] | r for r in results if r["by"] == "planner" and r["result"] is not None]
    return _INTRODUCTION + "\n" + "\n".join(sections) + "\n## All models\n\n" + _summary(everything)


def _section(subject: Subject, results: list[dict[str, Any]]) -> str:
    own = [r for r in results if r["by"] == "planner"]
    some = next((r["result"] for r in own if r["result"] is not None), None)
    if some is None:
        return ""
    after = f"retrained for {some['epochs']:g} epochs" if some["epochs"] else "recovered in closed form, no retraining"
    text = (
        f"## {subject.name}\n\nThe whole model gets {100 * some['whole']:.1f} % of {some['num_images']:,} test images "
        f"right. Sub-models are {after}.\n\n" + _HEAD
    )
    for fleet in subject.fleets:
        for drop in subject.drops:
            rows = [r for r in results if (r["fleet"], r["drop"]) == (fleet, drop)]
            if rows:
                text += _row(fleet, drop, rows) + "\n"
    return text + "\n" + _summary([r["result"] | r for r in own if r["result"] is not None])


def _row(fleet: str, drop: float, rows: list[dict[str, Any]]) -> str:
    own = [r["result"] for r in sorted(rows, key=lambda r: r["seed"]) if r["by"] == "planner"]
    if not own or own[0] is None:
        return f"| {fleet} | {100 * drop:g} | no plan | | | | | | |"
    first = own[0]
    cells = [
        fleet,
        f"{100 * drop:g}",
        f"{first['latency_us'] / 1000:.3g}",
        f"{first['boards']}",
        f"{100 * first['predicted']:.1f} ({100 * first['low']:.1f} to {100 * first['high']:.1f})",
        ", ".join(f"{100 * r['measured']:.1f}" for r in own if r is not None),
    ]
    for by in ("one board", "greedy", "random-equal"):
        found = next((r for r in rows if r["by"] == by), None)
        if found is None:
            cells.append("")
        else:
            cells.append("no plan" if found["result"] is None else f"{100 * found['result']['measured']:.1f}")
    return "| " + " | ".join(cells) + " |"


def _summary(results: list[dict[str, Any]]) -> str:
    if not results:
        return ""
    measured = np.array([r["measured"] for r in results])
    predicted = np.array([r["predicted"] for r in results])
    allowed = np.array([r["drop"] for r in results])
    off = 100 * (predicted - measured)
    inside = np.array([r["low"] - 1e-9 <= r["measured"] <= r["high"] + 1e-9 for r in results])
    return (
        f"{len(results)} executions: measured less predicted accuracy {off.mean():+.2f} points on average, "
        f"{np.abs(off).mean():.2f} in size, at most {np.abs(off).max():.2f}; "
        f"{100 * inside.mean():.0f} % within the 80 % interval; "
        f"{100 * (measured <= allowed + 0.005).mean():.0f} % lose at most half a point more than allowed.\n"
    )
