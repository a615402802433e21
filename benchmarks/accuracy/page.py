"""Page of the benchmark, written from results alone."""

import platform
from collections.abc import Sequence
from fractions import Fraction
from statistics import mean

import numpy
import onnxruntime
import torch

from benchmarks.accuracy.ablations import ABLATIONS
from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.fleets import FLEETS
from benchmarks.accuracy.plans import BASELINES, OURS, ROWS
from benchmarks.accuracy.results import Costs, LatencyAtAccuracy, Study, half_range, latency_at_accuracy
from benchmarks.accuracy.settings import (
    AHEAD_POINTS,
    LIMIT,
    MAIN_FLEET,
    NEAR_POINTS,
    SHARE_OF_LATENCY,
    SWEEP,
)
from planner.profiler.device.probe_script import cpu_name, num_cores

NONE = "-"


def page(studies: Sequence[Study]) -> str:
    """Return the page as markdown."""
    lines = [*_head(), *_wholes(studies), *_targets(studies)]
    for study in studies:
        lines += ["", f"## {study.subject}", "", *_plot_link(study), *_by_fleet(study), *_sweep(study)]
        lines += [*_equal_accuracy(study), *_ablated(study)]
    return "\n".join([*lines, *_claims(studies)]) + "\n"


def _plot_link(study: Study) -> list[str]:
    return [f"![Fused accuracy against latency](accuracy-{study.subject}.png)", ""]


def _head() -> list[str]:
    return [
        "# Are sub-models as good as the whole?",
        "",
        "A trained ViT is split over a fleet in our way and in the style of DeViT (arXiv 2309.05015) and ED-ViT (arXiv "
        "2410.11650), on the same data, with the same latency limit and the same number of training images seen by "
        "each sub-model, in one run. `make bench-accuracy` runs it again and goes on where it was stopped.",
        "",
        f"{cpu_name()} ({platform.machine()}), {num_cores()} cores; Python {platform.python_version()}, torch "
        f"{torch.__version__}, onnxruntime {onnxruntime.__version__}, numpy {numpy.__version__}. Latencies are of one "
        "thread and one image in ONNX Runtime, measured before anything was trained: the shortest round at the "
        "medians' level. Devices `half` and `quarter` are this machine with every time doubled or multiplied by four, "
        "predicted and measured. Links cost nothing: what is compared is compute. A gateway as fast as `here` joins "
        "the features; its time is predicted, and counted in both latencies.",
        "",
        "Rows: `pruned` is one device alone with all classes; `devit` has random equal class subsets, one pruning "
        "ratio for all and DeViT's recipe; `ed-vit` random subsets placed greedily, and ED-ViT's recipe; `ours` the "
        "exact plan and the default recipe. The baselines follow the papers' descriptions: neither planner was "
        "published as code that runs on unequal devices. Their class subsets are drawn anew with each seed. "
        "Accuracies are of the test part, ± half the range over the seeds. *Lost* is the fused accuracy when the "
        "device is lost that is missed most. Sizes are shares of the whole model's: of the largest sub-model, and of "
        "all together. *Images* are those that a sub-model has learned from, all epochs together; a training whose "
        "held-out loss stops falling ends early. Seconds to train are of one core among busy ones. A dash is what was "
        "not run, or means nothing there.",
    ]


def _wholes(studies: Sequence[Study]) -> list[str]:
    lines = [
        "",
        "## Whole models",
        "",
        "| model | network | params | MACs | trained | accuracy | worst class | latency predicted [us] | "
        "measured [us] | budget of each sub-model |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in studies:
        w = s.whole
        lines.append(
            f"| {s.subject} | {w.size} | {w.params / 1e6:.2f} M | {w.macs / 1e6:.2f} M | {w.training} "
            f"| {w.accuracy:.2%} | {min(w.by_class):.1%} | {w.predicted_us:.0f} | {w.measured_us:.0f} | {s.budget} |"
        )
    return lines


_COLUMNS = (
    "fused accuracy | worst class | lost | latency predicted [us] | measured [us] | memory [KiB] | params | MACs | "
    "images | train [s]"
)


def _cells(study: Study, row: str, fleet: str, limit: Fraction) -> str:
    """Return the cells of `_COLUMNS`."""
    costs, outcomes = study.costs(row, fleet, limit), study.outcomes(row, fleet, limit)
    if costs is None:
        reason = study.reason(row, fleet, limit).replace("\n", " ").split(". ")[0]
        return f"{reason or NONE} | | | | | | | | | "
    size = (
        f"{costs.predicted_us:.0f} | {costs.measured_us:.0f} | {costs.memory_bytes / 1024:.0f} | "
        f"{costs.params[0]:.2f}, {costs.params[1]:.2f} | {costs.macs[0]:.2f}, {costs.macs[1]:.2f}"
    )
    if not outcomes:
        return f"{NONE} | {NONE} | {NONE} | {size} | {NONE} | {NONE}"
    lost = [o.lost for o in outcomes if o.lost is not None]
    return (
        f"{accuracy_text([o.fused for o in outcomes])} | {mean(o.worst for o in outcomes):.1%} | "
        f"{f'{mean(lost):.1%}' if lost else NONE} | {size} | {_images(outcomes)} | "
        f"{mean(o.seconds for o in outcomes):.0f}"
    )


def _images(outcomes: Sequence[Outcome]) -> str:
    """Return how many images sub-models have learned from, in thousands: minimum and maximum, where they differ."""
    counts = [count / 1000 for o in outcomes for count in o.images.values()]
    ends = dict.fromkeys(f"{count:.1f}k" for count in (min(counts), max(counts)))
    return " to ".join(ends)


def accuracy_text(values: Sequence[float]) -> str:
    """Return the mean of accuracies, half their range [points], and their number."""
    half = half_range(values)
    return f"{mean(values):.2%}" if half is None else f"{mean(values):.2%} ± {100 * half:.2f} ({len(values)})"


def _by_fleet(study: Study) -> list[str]:
    lines = [
        f"At {LIMIT} of the whole model's latency ({float(LIMIT) * study.whole.predicted_us:.0f} us at most):",
        "",
        f"| fleet | row | {_COLUMNS} |",
        "|---|---|" + "---|" * 10,
    ]
    for fleet in FLEETS:
        rows = [row for row in ROWS if study.costs(row, fleet, LIMIT) or study.reason(row, fleet, LIMIT)]
        lines += [f"| {fleet} | {row} | {_cells(study, row, fleet, LIMIT)} |" for row in rows]
    w = study.whole
    lines.append(
        f"| one `here` | whole | {w.accuracy:.2%} | {min(w.by_class):.1%} | {NONE} | {w.predicted_us:.0f} | "
        f"{w.measured_us:.0f} | {4 * w.params / 1024:.0f} (weights) | 1, 1 | 1, 1 | {NONE} | {NONE} |"
    )
    return lines


def _sweep(study: Study) -> list[str]:
    lines = ["", f"On {MAIN_FLEET}, at other limits:", "", f"| limit | row | {_COLUMNS} |", "|---|---|" + "---|" * 10]
    shown = [
        f"| {limit} | {row} | {_cells(study, row, MAIN_FLEET, limit)} |"
        for limit in SWEEP
        for row in ROWS
        if study.costs(row, MAIN_FLEET, limit) or study.reason(row, MAIN_FLEET, limit)
    ]
    return [*lines, *shown]


def curve(study: Study, row: str) -> list[tuple[float, float]]:
    """Return a row's points of the sweep: measured latency [us] and mean accuracy."""
    points = []
    for limit in SWEEP:
        costs, accuracy = study.costs(row, MAIN_FLEET, limit), study.accuracy(row, MAIN_FLEET, limit)
        if costs is not None and accuracy is not None:
            points.append((costs.measured_us, accuracy))
    return points


def _equal_accuracy(study: Study) -> list[str]:
    aim, ours = study.accuracy(OURS, MAIN_FLEET, LIMIT), study.costs(OURS, MAIN_FLEET, LIMIT)
    if aim is None or ours is None:
        return []
    lines = [
        "",
        f"At ours' accuracy ({aim:.2%} on {MAIN_FLEET} at {LIMIT}), by straight lines between the measured points:",
        "",
        "| row | measured latency [us] | ours' share of it |",
        "|---|---|---|",
    ]
    for row in ROWS:
        at = LatencyAtAccuracy(ours.measured_us, 0) if row == OURS else latency_at_accuracy(curve(study, row), aim)
        lines.append(f"| {row} | {_latency_text(at)} | {_share_text(at, ours)} |")
    return lines


def _latency_text(at: LatencyAtAccuracy | None) -> str:
    if at is None:
        return NONE
    if at.latency_us is not None:
        return f"{at.latency_us:.0f}"
    return f"not reached (more than {at.bound_us:.0f})" if at.above else f"at most {at.bound_us:.0f}"


def _share_text(at: LatencyAtAccuracy | None, ours: Costs) -> str:
    if at is None:
        return NONE
    if at.latency_us is not None:
        return f"{ours.measured_us / at.latency_us:.2f}"
    sign = "less than" if at.above else "at least"
    return f"{sign} {ours.measured_us / at.bound_us:.2f}"


def _ablated(study: Study) -> list[str]:
    base = study.outcomes(OURS, MAIN_FLEET, LIMIT)
    shown = [name for name in ABLATIONS if study.outcomes(name, MAIN_FLEET, LIMIT)]
    if not base or not shown:
        return []
    lines = [
        "",
        f"Ours on {MAIN_FLEET} at {LIMIT} without one of its parts:",
        "",
        "| without | fused accuracy | difference [points] | worst class | measured [us] |",
        "|---|---|---|---|---|",
    ]
    mean_base = mean(o.fused for o in base)
    for name in (OURS, *shown):
        outcomes, costs = study.outcomes(name, MAIN_FLEET, LIMIT), study.costs(name, MAIN_FLEET, LIMIT)
        assert costs is not None
        difference = 100 * (mean(o.fused for o in outcomes) - mean_base)
        lines.append(
            f"| {'nothing: ours' if name == OURS else name} | {accuracy_text([o.fused for o in outcomes])} | "
            f"{difference:+.2f} | {mean(o.worst for o in outcomes):.1%} | {costs.measured_us:.0f} |"
        )
    return lines


def _targets(studies: Sequence[Study]) -> list[str]:
    lines = ["", "## Targets", "", f"On {MAIN_FLEET}, at {LIMIT} of the whole model's latency."]
    for s in studies:
        ours, costs = s.accuracy(OURS, MAIN_FLEET, LIMIT), s.costs(OURS, MAIN_FLEET, LIMIT)
        if ours is None or costs is None:
            continue
        below = 100 * (s.whole.accuracy - ours)
        lines.append(
            f"- {s.subject}: within {NEAR_POINTS:g} point of the whole model: {below:+.2f} points below, "
            f"{verdict(NEAR_POINTS - below, 'points')}."
        )
        for row in BASELINES:
            baseline_accuracy = s.accuracy(row, MAIN_FLEET, LIMIT)
            if s.costs(row, MAIN_FLEET, LIMIT) is None:
                lines.append(f"- {s.subject}: {row} has no plan within the limit; ours has.")
            elif baseline_accuracy is not None:
                ahead = 100 * (ours - baseline_accuracy)
                text = f"{ahead:+.2f} points above, {verdict(ahead - AHEAD_POINTS, 'points')}"
                lines.append(
                    f"- {s.subject}: at least {AHEAD_POINTS:g} points above {row} at the same latency: {text}."
                )
            lines += _share_line(s.subject, row, latency_at_accuracy(curve(s, row), ours), costs)
    return lines


def _share_line(subject: str, row: str, at: LatencyAtAccuracy | None, ours: Costs) -> list[str]:
    if at is None:
        return []
    share = ours.measured_us / (at.latency_us or at.bound_us)
    # A bound on the wrong side of the target decides nothing.
    is_undecided = at.latency_us is None and (share > SHARE_OF_LATENCY) == at.above
    result = "not decided by the limits tried" if is_undecided else verdict(SHARE_OF_LATENCY - share, "of the latency")
    text = f"{_share_text(at, ours)} of it, {result}"
    return [f"- {subject}: at most {SHARE_OF_LATENCY:g} of {row}'s latency at the same accuracy: {text}."]


def verdict(margin: float, unit: str) -> str:
    """Return a sentence part that says whether a target is met, and by how much."""
    return f"{'met' if margin >= 0 else 'missed'} by {abs(margin):.2f} {unit}"


def _claims(studies: Sequence[Study]) -> list[str]:
    lines = [
        "",
        "## What the papers claim, and what the same ratio is here",
        "",
        "ED-ViT states sizes up to 34.1 times smaller and latency up to 28.9 times lower: one sub-model against the "
        "whole. A ViT-Base with ten classes at 2/12 of every width has 34.26 times fewer params and 29.11 times fewer "
        "MACs in matrix products; ten of them, one for each class, have 3.43 and 2.91 times fewer together. "
        "Below the same ratio is applied to the models here (whole heads, multiples of 8), and timed. "
        "DeViT states 2.89 times less latency than ViT-L/16 at 1.65 points less accuracy (CIFAR-100, on a GPU).",
        "",
        "| model | params ÷ per device | fleet of ten | MACs ÷ per device | fleet of ten | latency ÷, measured |",
        "|---|---|---|---|---|---|",
        "| ViT-Base, ten classes (counted) | 34.26 | 3.43 | 29.11 | 2.91 | claimed: up to 28.9 |",
    ]
    for s in studies:
        w = s.whole
        lines.append(
            f"| {s.subject} | {w.small_params:.2f} | {w.small_params / 10:.2f} | {w.small_macs:.2f} | "
            f"{w.small_macs / 10:.2f} | {w.measured_us / w.small_us:.2f} |"
        )
    return lines
