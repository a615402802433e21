"""Predicted beside measured for models that nobody tuned for.

python -m benchmarks.truth [--subjects digits,...] [--seeds 2] [--minutes M]

Each model is profiled, planned for, and its plans are executed and tested. Finished work is kept in build/truth, so
that the same command continues where it was stopped. Writes docs/truth.md and its results, docs/truth.json:
those of models that have none in build/truth stay as they are.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.store import read_json, write_json
from benchmarks.data_sets import ROOT
from benchmarks.truth import page, trials
from benchmarks.truth.profiles import WORK, profile_of
from benchmarks.truth.subjects import Subject, fleet_of, is_there, subjects
from planner.cli import terminal
from planner.errors import InputError
from planner.schema import Plan, Profile
from planner.schema.base import write_text

RESULTS = ROOT / "docs" / "truth.json"
_SOLVE_SECONDS = 30.0


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__)
    parser.add_argument("--subjects", default=",".join(subjects()), help=f"some of {','.join(subjects())}")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the trainings [2]")
    parser.add_argument("--minutes", type=float, help="start no execution after this time")
    options = parser.parse_args()
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    chosen = options.subjects.split(",")
    if unknown := [name for name in chosen if name not in subjects()]:
        parser.error(f"--subjects must be some of {','.join(subjects())}, got {unknown[0]!r}")
    torch.set_num_threads(1)
    with terminal.progress() as progress:
        for subject in (subjects()[name] for name in chosen):
            if not is_there(subject):
                progress.console.print(f"{subject.name}: left out, {subject.card} does not exist.")
                continue
            try:
                profile = profile_of(subject, progress)
            except InputError as error:
                progress.console.print(f"{subject.name}: left out, {error}")
                continue
            task = progress.add_task(f"{subject.name}: execute plans", total=None)
            for label, run in list(_executions(subject, profile, options.seeds)):
                if until is not None and time.monotonic() > until:
                    break
                progress.update(task, description=f"{subject.name}: {label}")
                run()
    results = (read_json(RESULTS) or {}) | _finished()
    write_json(RESULTS, results)
    write_text(RESULTS.with_suffix(".md"), page.page(results, list(subjects().values())))


def _finished() -> dict[str, list[dict[str, Any]]]:
    """Return the results in build/truth, by model."""
    found = {name: [read_json(file) for file in sorted((WORK / name).glob("*.json"))] for name in subjects()}
    return {name: results for name, results in found.items() if results}


def _executions(subject: Subject, profile: Profile, num_seeds: int) -> "Iterator[tuple[str, _Execution]]":
    """Yield the executions of a model, the planner's own plans of the first seed first."""
    rest = []
    for drop in subject.drops:
        for fleet in subject.fleets:
            of = f"{fleet}, {100 * drop:g} points"
            yield of, _Execution(subject, profile, fleet, drop, "planner", 0)
            rest += [(f"{of}, one board", _Execution(subject, profile, fleet, drop, "one board", 0))]
            rest += [
                (f"{of}, seed {seed}", _Execution(subject, profile, fleet, drop, "planner", seed))
                for seed in range(1, num_seeds)
            ]
            rest += [
                (f"{of}, {method}", _Execution(subject, profile, fleet, drop, method, 0))
                for method in ("greedy", "random-equal")
            ]
    yield from rest


class _Execution:
    """One plan of one model: solved, executed, and its result written."""

    def __init__(self, subject: Subject, profile: Profile, fleet: str, drop: float, by: str, seed: int) -> None:
        self.subject, self.profile, self.fleet, self.drop, self.by, self.seed = subject, profile, fleet, drop, by, seed

    @property
    def file(self) -> Path:
        """File of the result."""
        name = f"{self.fleet}-{self.drop:g}-{self.by}-{self.seed}".replace(" ", "-")
        return WORK / self.subject.name / f"{name}.json"

    def __call__(self) -> None:
        """Solve, execute and measure, unless that was done."""
        if read_json(self.file) is not None:
            return
        plan = self._plan()
        cache = WORK / self.subject.name / "executed"
        result = None if plan is None else trials.executed(plan, self.profile, self.subject, self.seed, cache)
        content = {"fleet": self.fleet, "drop": self.drop, "by": self.by, "seed": self.seed}
        write_json(self.file, content | {"result": trials.as_json(result)})

    def _plan(self) -> Plan | None:
        fleet = fleet_of(self.fleet, self.profile)
        own = trials.plan_for(self.profile, fleet, self.drop, _SOLVE_SECONDS)
        if own is None or self.by == "planner":
            return own
        if self.by == "one board":
            return trials.one_board(self.profile, fleet, own, _SOLVE_SECONDS)
        return trials.baseline(self.profile, fleet, own, "greedy" if self.by == "greedy" else "random-equal")


if __name__ == "__main__":
    main()
