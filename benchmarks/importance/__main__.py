"""Which importance predicts best what classes lose, and which groups of channels keep most: docs/importance.md.

python -m benchmarks.importance [--fresh]

What takes long (real losses, trainings, importance by one unit at a time) is kept under build/.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.importance import grouping, page, trials
from benchmarks.importance.subjects import ROOT, WORK, Subject, subjects
from benchmarks.importance.trials import REMOVED, RETRAINED, Store
from planner.profiler.importance import DEFAULT, EXPONENTS, measure_importance
from planner.profiler.importance_sums import UnitImportance
from planner.schema.base import write_text


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.importance", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "importance.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reports = [_report(subject, Store(WORK / f"{subject.name}.json", options.fresh)) for subject in subjects()]
    write_text(options.out, page.page(reports))


def _report(subject: Subject, store: Store) -> page.Report:
    importances, seconds = {}, {}
    for method in EXPONENTS:
        importances[method], seconds[method] = _measured(subject, method, store)
    powers = {
        f"{method}, {name}": replace(importances[method], exponent=exponent)
        for method in ("thinned", "fisher", "kl")
        for name, exponent in (("root", 0.5), ("square", 1.0))
    }
    powers = {name.replace("kl, square", "kl, as it is"): importance for name, importance in powers.items()}
    named = powers | {method: importances[method] for method in ("shapley", "taylor", "magnitude")}
    agreements: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in named}
    for kind in REMOVED:
        cuts = trials.random_cuts(subject.model.shape, kind)
        real = [
            store.result(f"{kind} {size:g}", lambda of=of, kind=kind: _lost(subject, of, kind))
            for size, of in zip(REMOVED[kind], cuts, strict=True)
        ]
        for name, importance in named.items():
            predicted = [trials.removed_shares(importance, of) for of in cuts]
            agreements[name][kind] = [trials.agreement(predicted, [np.array(r[i]) for r in real]) for i in (0, 1)]
    groups = store.result("groups", lambda: [asdict(row) for row in grouping.compare(subject, importances[DEFAULT])])
    return page.Report(subject, agreements, seconds, [grouping.Row(**row) for row in groups])


def _measured(subject: Subject, method: str, store: Store) -> tuple[UnitImportance, float]:
    start = time.perf_counter()
    importance = measure_importance(method, subject.model, subject.train, state=WORK / f"{subject.name}-{method}.state")
    seconds = time.perf_counter() - start
    return importance, store.result(f"seconds of {method}", lambda: seconds)


def _lost(subject: Subject, cuts: list[trials.Cut], kind: str) -> list[list[list[float]]]:
    lost = trials.losses(subject, cuts, kind == RETRAINED)
    return [lost.probability.tolist(), lost.accuracy.tolist()]


if __name__ == "__main__":
    main()
