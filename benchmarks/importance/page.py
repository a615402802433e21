"""Page of the benchmark."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.importance.grouping import CLASS_COUNTS, KEPT_SHARES, SIZE, GroupingResult
from benchmarks.importance.removals import REMOVED_SHARES, RETRAINED, SETS_PER_SIZE
from benchmarks.importance.subjects import Subject


@dataclass(frozen=True)
class Report:
    """Results of one model: rank correlations (overall, within a size) of two losses, by method and category of set."""

    subject: Subject
    correlations: dict[str, dict[str, list[tuple[float, float]]]]
    seconds: dict[str, float]
    groups: list[GroupingResult]


def page(reports: Sequence[Report]) -> str:
    """Return the page as markdown."""
    missing = "" if len(reports) > 1 else " Fashion-MNIST is missing: its data was not found (PLANNER_DATA)."
    lines = [
        "# Which importance predicts what classes lose, and which channel groups keep most",
        "",
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread of a busy "
        f"machine: times are good to a factor of two. `make bench-importance` runs it again.{missing}",
        "",
        "Random sets of units are cut from a trained model, more from some blocks than from others, in "
        f"{len(REMOVED_SHARES['heads'])} sizes of {SETS_PER_SIZE} sets; channels go in groups of {SIZE} neighbours, "
        "mixed sets have heads, channels and embed dims. Predicted is the share of a class's importance that a set "
        "takes, as a plan's retention counts it; real is what the class loses on test images, without retraining, of "
        "the mean probability of the true class (finer than accuracy, in brackets). Each number is Spearman's rank "
        "correlation over sets, class by class, and the mean over classes: first over all sizes, then within one size "
        f"(mean over sizes), which is the harder question and the one that a planner asks. Of *{RETRAINED}* sets there "
        "are 10 in each of 3 sizes, retrained by distillation for a short while (digits three epochs, Fashion-MNIST "
        "one of the measured images).",
    ]
    for report in reports:
        shape, subject = report.subject.model.shape, report.subject
        lines += [
            "",
            f"## {subject.name}",
            "",
            f"{shape.depth} blocks, {shape.num_heads[0]} heads, {shape.hidden_dim[0]} channels, "
            f"{shape.embed_dim} embed dims; importance from {len(subject.train):,} training images "
            f"(kl: 8 of each class), losses on {len(subject.test):,} test images.",
            "",
            *_methods(report),
            "",
            *_groups(report),
        ]
    return "\n".join(lines) + "\n"


def _methods(report: Report) -> list[str]:
    lines = [
        f"| method | {' | '.join(REMOVED_SHARES)} | time [s] |",
        f"|---|{'---|' * len(REMOVED_SHARES)}---|",
    ]
    for name, by_category in report.correlations.items():
        cells = []
        for category in REMOVED_SHARES:
            (overall, within), (of_accuracy, within_accuracy) = by_category[category]
            cells.append(f"{overall:.2f}, {within:.2f} ({of_accuracy:.2f}, {within_accuracy:.2f})")
        seconds = report.seconds[name.partition(",")[0]]
        lines.append(f"| {name} | {' | '.join(cells)} | {seconds:.3g} |")
    return lines


def _groups(report: Report) -> list[str]:
    heading = [f"{n} of 10, {kept:.1%} kept" for n in CLASS_COUNTS for kept in KEPT_SHARES]
    lines = [
        f"Channel groups of {SIZE}: the least retention of the classes of random subsets, at the best choice of groups "
        "(single channels: the best that any grouping could do), and in brackets the accuracy on the subset's images "
        "of the network so cut, without retraining. Heads and embed dims are all kept.",
        "",
        f"| channels | {' | '.join(heading)} | mean | time [s] |",
        f"|---|{'---|' * len(heading)}---|---|",
    ]
    for row in report.groups:
        pairs = zip(row.retention, row.accuracy, strict=True)
        cells = [f"{retention:.3f} ({accuracy:.3f})" for retention, accuracy in pairs]
        mean = [sum(values) / len(values) for values in (row.retention, row.accuracy)]
        lines.append(f"| {row.name} | {' | '.join(cells)} | {mean[0]:.3f} ({mean[1]:.3f}) | {row.seconds:.2f} |")
    return lines
