"""Are sub-models as good as the whole? Ours beside DeViT-style and ED-ViT-style deployment: docs/accuracy.md.

python -m benchmarks.accuracy [--subjects digits,...] [--jobs 2] [--minutes M] [--small]

What is finished is kept in the cache folder, so that the same command goes on where it was stopped.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.progress import Progress

from benchmarks.accuracy import collect, page, picture, timing
from benchmarks.accuracy.bench import Bench, make_ready
from benchmarks.accuracy.execution import Execution, Outcome, execution_key, measure_whole, prepare
from benchmarks.accuracy.plans import Case, Planned, all_cases, planned, shapes_of, small_cases
from benchmarks.accuracy.results import Study
from benchmarks.accuracy.runner import in_order, run
from benchmarks.accuracy.settings import BUDGETS, SMALL, SUBJECTS
from benchmarks.accuracy.store import kept, key_of, read_json
from benchmarks.accuracy.subjects import DIGITS, card_of
from benchmarks.data_sets import ROOT
from planner.cli import terminal
from planner.schema import write_document
from planner.schema.base import write_text


def main() -> None:
    """Run what was asked for, and write the page from what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help=f"some of {','.join(SUBJECTS)}")
    parser.add_argument("--jobs", type=int, default=2, help="executions side by side [2]")
    parser.add_argument("--minutes", type=float, help="begin no execution after so long; the page has what is there")
    parser.add_argument("--small", action="store_true", help="digits, one fleet, one seed, hardly trained: a trial")
    parser.add_argument("--out", type=Path, help="folder of the page [docs; build/accuracy if --small]")
    options = parser.parse_args()
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    names = [DIGITS] if options.small else options.subjects.split(",")
    if unknown := [name for name in names if name not in SUBJECTS]:
        parser.error(f"--subjects must be some of {','.join(SUBJECTS)}, got {unknown[0]!r}")
    out = options.out or ROOT / ("build/accuracy" if options.small else "docs")
    torch.set_num_threads(1)
    with terminal.progress() as progress:
        studies = [study for name in names if (study := _studied(name, options.small, progress)) is not None]
        run(in_order([list(study.jobs.values()) for study in studies]), options.jobs, until, progress)
    finished = [study.finished() for study in studies]
    for study in finished:
        picture.draw(study, out / picture.name_of(study.subject))
    write_text(out / "accuracy.md", page.page(finished))


class _Study:
    """One subject's plans, times and executions."""

    def __init__(self, bench: Bench, plans: dict[Case, Planned], times: dict[str, float], progress: Progress) -> None:
        self.bench, self.plans, self.times = bench, plans, times
        self.whole = kept(bench.folder / f"whole-{bench.card.weights_sha256[:16]}.json", self._whole)
        profile = bench.folder / f"planned-{key_of(bench.profile.model_dump(mode='json'))}.json"
        if not profile.exists():
            write_document(profile, bench.profile)
        budget = bench.budget
        sha = str(bench.card.weights_sha256)
        lessons = bench.folder / f"lessons-{key_of(sha, budget.epochs, budget.per_class)}.safetensors"
        task = progress.add_task(f"{bench.subject}: the whole model's answers", total=None)
        prepare(str(bench.card_path), budget, lessons, lambda done, n: progress.update(task, completed=done, total=n))
        progress.remove_task(task)
        self.jobs = {
            case: Execution(
                card=str(bench.card_path),
                profile=profile,
                plan=p.path,
                recipe=case.recipe,
                budget=budget,
                seed=case.seed,
                lessons=lessons,
                out=bench.folder
                / "executions"
                / f"{execution_key(p.plan, bench.profile, sha, case.recipe, budget, case.seed)}.json",
            )
            for case, p in plans.items()
            if p.plan is not None and p.path is not None
        }

    def _whole(self) -> dict[str, object]:
        return measure_whole(str(self.bench.card_path))

    def finished(self) -> Study:
        """Return what the page is written from."""
        found = {case: read_json(job.out) for case, job in self.jobs.items()}
        outcomes = {case: Outcome(**fields) for case, fields in found.items() if fields is not None}
        return collect.study(self.bench, self.whole, self.times, self.plans, outcomes)


def _studied(subject: str, small: bool, progress: Progress) -> _Study | None:
    card = card_of(subject, progress)
    if card is None:
        return None
    bench = make_ready(subject, card, SMALL if small else BUDGETS[subject], progress)
    cases = small_cases() if small else all_cases()
    task = progress.add_task(f"{subject}: plans", total=len(cases))
    plans = {}
    for case in cases:
        plans[case] = planned(bench, case)
        progress.advance(task)
    shapes = [shape for p in plans.values() if p.plan is not None for shape in shapes_of(bench, p.plan)]
    shapes.append(collect.paper_shape(bench.whole))

    def on_network(done: int, total: int) -> None:
        progress.update(task, description=f"{subject}: sub-models to time", completed=done, total=total)

    times = timing.time_shapes(bench.card.model, bench.whole, shapes, bench.folder / "times", on_network)
    progress.remove_task(task)
    return _Study(bench, plans, times, progress)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. What was finished is kept: the same command goes on from there.\n")
        sys.exit(130)
