"""Comparison of importance methods and of channel groupings: docs/importance.md.

python -m benchmarks.importance [--fresh]

Slow results (measured losses, trainings, importance by one unit at a time) are cached under build/.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.data_sets import ROOT
from benchmarks.importance import grouping, page, removals
from benchmarks.importance.removals import REMOVED_SHARES, RETRAINED, ResultCache
from benchmarks.importance.subjects import WORK, Subject, subjects
from planner.profiler.importance import DEFAULT_METHOD, EXPONENTS, ImportanceMethod, measure_importance
from planner.profiler.importance_sums import UnitImportance
from planner.schema.base import write_text


def main() -> None:
    """Measure all models and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.importance", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="ignore earlier results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "importance.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reports = [_report(subject, ResultCache(WORK / f"{subject.name}.json", options.fresh)) for subject in subjects()]
    write_text(options.out, page.page(reports))


def _report(subject: Subject, cache: ResultCache) -> page.Report:
    importances: dict[ImportanceMethod, UnitImportance] = {}
    seconds: dict[str, float] = {}
    for method in EXPONENTS:
        importances[method], seconds[method] = _measured(subject, method, cache)
    named = _variants(importances)
    correlations: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in named}
    for category in REMOVED_SHARES:
        sets = removals.random_sets(subject.model.shape, category)
        measured = [
            cache.result(f"{category} {size:g}", partial(_losses, subject, sets_of_size, category))
            for size, sets_of_size in zip(REMOVED_SHARES[category], sets, strict=True)
        ]
        for name, importance in named.items():
            predicted = [removals.removed_shares(importance, sets_of_size) for sets_of_size in sets]
            correlations[name][category] = [
                removals.rank_correlation(predicted, [np.array(losses[i]) for losses in measured]) for i in (0, 1)
            ]
    groupings = cache.result(
        "groups", lambda: [asdict(row) for row in grouping.compare_groupings(subject, importances[DEFAULT_METHOD])]
    )
    return page.Report(subject, correlations, seconds, [grouping.GroupingResult(**row) for row in groupings])


def _variants(importances: Mapping[ImportanceMethod, UnitImportance]) -> dict[str, UnitImportance]:
    """Return the methods by the names of the page's rows, some with both exponents."""
    methods: tuple[ImportanceMethod, ...] = ("thinned", "fisher", "kl")
    powers = {
        f"{method}, {name}": replace(importances[method], exponent=exponent)
        for method in methods
        for name, exponent in (("root", 0.5), ("square", 1.0))
    }
    powers = {name.replace("kl, square", "kl, as it is"): importance for name, importance in powers.items()}
    others: tuple[ImportanceMethod, ...] = ("shapley", "taylor", "magnitude")
    return powers | {method: importances[method] for method in others}


def _measured(subject: Subject, method: ImportanceMethod, cache: ResultCache) -> tuple[UnitImportance, float]:
    start = time.perf_counter()
    importance = measure_importance(method, subject.model, subject.train, state=WORK / f"{subject.name}-{method}.state")
    seconds = time.perf_counter() - start
    return importance, cache.result(f"seconds of {method}", lambda: seconds)


def _losses(subject: Subject, sets: list[removals.KeptUnits], category: str) -> list[list[list[float]]]:
    losses = removals.class_losses(subject, sets, category == RETRAINED)
    return [losses.probability.tolist(), losses.accuracy.tolist()]


if __name__ == "__main__":
    main()
