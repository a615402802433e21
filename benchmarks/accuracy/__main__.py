"""Accuracy of our deployment, and of DeViT-style and ED-ViT-style deployment, against the whole model.

python -m benchmarks.accuracy [--subjects digits,...] [--jobs 2] [--minutes M] [--small]

Writes docs/accuracy.md. Finished results are kept in the cache folder, so that the same command continues where it was
stopped.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.progress import Progress

from benchmarks.accuracy import collect, page, plot, timing
from benchmarks.accuracy.execution import Execution, Outcome, execution_key, measure_whole, prepare_teacher, whole_key
from benchmarks.accuracy.plans import Case, PlannedCase, all_cases, plan_case, shapes_of, small_cases
from benchmarks.accuracy.prepared_subject import PreparedSubject, prepare_subject
from benchmarks.accuracy.results import Study
from benchmarks.accuracy.runner import interleaved, run_executions
from benchmarks.accuracy.settings import BUDGETS, SMALL, SUBJECTS
from benchmarks.accuracy.store import cached, read_json, result_key
from benchmarks.accuracy.subjects import DIGITS, trained_card
from benchmarks.data_sets import ROOT
from planner.cli import terminal
from planner.schema import write_document
from planner.schema.base import write_text


def main() -> None:
    """Run the executions of the chosen subjects, and write the page from all results so far."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help=f"some of {','.join(SUBJECTS)}")
    parser.add_argument("--jobs", type=int, default=2, help="executions side by side [2]")
    parser.add_argument(
        "--minutes", type=float, help="start no execution after this time; the page has the results so far"
    )
    parser.add_argument(
        "--small", action="store_true", help="digits, one fleet, one seed, hardly trained: a short test"
    )
    parser.add_argument("--out", type=Path, help="folder of the page [docs; build/accuracy if --small]")
    options = parser.parse_args()
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    names = [DIGITS] if options.small else options.subjects.split(",")
    if unknown := [name for name in names if name not in SUBJECTS]:
        parser.error(f"--subjects must be some of {','.join(SUBJECTS)}, got {unknown[0]!r}")
    out = options.out or ROOT / ("build/accuracy" if options.small else "docs")
    torch.set_num_threads(1)
    with terminal.progress() as progress:
        runs = [run for name in names if (run := _prepare_run(name, options.small, progress)) is not None]
        run_executions(interleaved([list(run.jobs.values()) for run in runs]), options.jobs, until, progress)
    studies = [run.study() for run in runs]
    for study in studies:
        plot.draw(study, out / plot.file_name(study.subject))
    write_text(out / "accuracy.md", page.page(studies))


class _SubjectRun:
    """Plans, times and executions of one subject."""

    def __init__(
        self, prepared: PreparedSubject, plans: dict[Case, PlannedCase], times: dict[str, float], progress: Progress
    ) -> None:
        self.prepared, self.plans, self.times = prepared, plans, times
        sha = str(prepared.card.weights_sha256)
        self.whole = cached(prepared.folder / f"whole-{whole_key(sha)}.json", self._measure_whole)
        profile = prepared.folder / f"planned-{result_key(prepared.profile.model_dump(mode='json'))}.json"
        if not profile.exists():
            write_document(profile, prepared.profile)
        budget = prepared.budget
        distillation_data = prepared.folder / f"lessons-{result_key(sha, budget.epochs, budget.per_class)}.safetensors"
        task = progress.add_task(f"{prepared.subject}: teacher logits", total=None)

        def on_copy(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        prepare_teacher(str(prepared.card_path), budget, distillation_data, on_copy)
        progress.remove_task(task)
        self.jobs = {
            case: Execution(
                card=str(prepared.card_path),
                profile=profile,
                plan=p.path,
                recipe=case.recipe,
                budget=budget,
                seed=case.seed,
                distillation_data=distillation_data,
                out=prepared.folder
                / "executions"
                / f"{execution_key(p.plan, prepared.profile, sha, case.recipe, budget, case.seed)}.json",
            )
            for case, p in plans.items()
            if p.plan is not None and p.path is not None
        }

    def _measure_whole(self) -> dict[str, object]:
        return measure_whole(str(self.prepared.card_path))

    def study(self) -> Study:
        """Return the results that exist, for the page."""
        results = {case: read_json(job.out) for case, job in self.jobs.items()}
        outcomes = {case: Outcome(**fields) for case, fields in results.items() if fields is not None}
        return collect.collect_study(self.prepared, self.whole, self.times, self.plans, outcomes)


def _prepare_run(subject: str, small: bool, progress: Progress) -> _SubjectRun | None:
    """Plan all cases of a subject and time their sub-models; None without its data set."""
    card = trained_card(subject, progress)
    if card is None:
        return None
    prepared = prepare_subject(subject, card, SMALL if small else BUDGETS[subject], progress)
    cases = small_cases() if small else all_cases()
    task = progress.add_task(f"{subject}: plans", total=len(cases))
    plans = {}
    for case in cases:
        plans[case] = plan_case(prepared, case)
        progress.advance(task)
    shapes = [shape for p in plans.values() if p.plan is not None for shape in shapes_of(prepared, p.plan)]
    shapes.append(collect.paper_shape(prepared.whole))

    def on_network(done: int, total: int) -> None:
        progress.update(task, description=f"{subject}: sub-models to time", completed=done, total=total)

    times = timing.time_shapes(prepared.card.model, prepared.whole, shapes, prepared.folder / "times", on_network)
    progress.remove_task(task)
    return _SubjectRun(prepared, plans, times, progress)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Finished results are kept: the same command continues from there.\n")
        sys.exit(130)
