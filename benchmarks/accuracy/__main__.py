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
from benchmarks.accuracy.plans import all_cases, plan_case, shapes_of, small_cases
from benchmarks.accuracy.prepared_subject import prepare_subject
from benchmarks.accuracy.runner import interleaved, run_executions
from benchmarks.accuracy.settings import BUDGETS, SMALL, SUBJECTS
from benchmarks.accuracy.subject_run import SubjectRun
from benchmarks.accuracy.subjects import DIGITS, trained_card
from benchmarks.data_sets import ROOT
from planner.cli import terminal
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
        run_executions(interleaved([list(run.jobs.values()) for run, _ in runs]), options.jobs, until, progress)
    studies = [run.study(times) for run, times in runs]
    for study in studies:
        plot.draw(study, out / plot.file_name(study.subject))
    write_text(out / "accuracy.md", page.page(studies))


def _prepare_run(subject: str, small: bool, progress: Progress) -> tuple[SubjectRun, dict[str, float]] | None:
    """Plan all cases of a subject and time their sub-models [us]; None without its data set."""
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
    return SubjectRun(prepared, plans, progress), times


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Finished results are kept: the same command continues from there.\n")
        sys.exit(130)
