"""A ViT split by class beside convolutional networks of the same latency.

python -m benchmarks.rivals [--minutes M] [--small] [--out DIR]

Writes docs/rivals.md. Finished results are kept in the cache folder, so that the same command continues where it was
stopped.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.progress import Progress

from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.plans import OURS, Case, shapes_of
from benchmarks.accuracy.prepared_subject import PreparedSubject
from benchmarks.accuracy.runner import run_executions
from benchmarks.accuracy.store import cached, code_hash, result_key
from benchmarks.accuracy.subject_run import SubjectRun
from benchmarks.accuracy.subjects import cache_folder
from benchmarks.data_sets import ROOT
from benchmarks.rivals import page
from benchmarks.rivals.conv_rows import ConvRows, TimeUpError
from benchmarks.rivals.networks import ConvShape, filters_of_width
from benchmarks.rivals.rows import Row, timed_shapes
from benchmarks.rivals.settings import FULL, SHORT, STEPS, Effort
from benchmarks.rivals.side_by_side import JoinShape, TimedShape, times_us
from benchmarks.rivals.vit_rows import ROWS, plans_of, prepare
from benchmarks.rivals.width import largest_width
from planner.cli import terminal
from planner.network import data
from planner.network.vit import Shape
from planner.schema.base import write_text

_TIMING = ("benchmarks/rivals/networks.py", "benchmarks/rivals/side_by_side.py", "benchmarks/rivals/width.py")


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, help="start no training after this time; the page has the results so far"
    )
    parser.add_argument("--small", action="store_true", help="digits, hardly trained: a short test")
    parser.add_argument("--out", type=Path, help="folder of the page [docs; build/rivals if --small]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    effort = SHORT if options.small else FULL
    with terminal.progress() as progress:
        text = _Comparison(effort, until, progress).text()
    write_text((options.out or ROOT / ("build/rivals" if options.small else "docs")) / "rivals.md", text)


class _Comparison:
    """All rows of a subject."""

    def __init__(self, effort: Effort, until: float | None, progress: Progress) -> None:
        self.effort, self.until, self.progress = effort, until, progress
        self.prepared: PreparedSubject = prepare(effort, progress)
        self.plans = plans_of(self.prepared)
        self.folder = cache_folder() / "rivals" / effort.subject

    def text(self) -> str:
        """Return the page, after running what is missing."""
        run = SubjectRun(self.prepared, self.plans, self.progress)
        run_executions(list(run.jobs.values()), 1, self.until, self.progress)
        rows = [*self._vit_rows(run), *self._conv_rows()]
        shapes = timed_shapes(rows)
        times = dict(zip(shapes, self._times(shapes, self.effort.rounds), strict=True))
        num_images = len(data.load(self.prepared.card, "test"))
        return page.page(self.effort, rows, times, num_images)

    def _vit_rows(self, run: SubjectRun) -> list[Row]:
        card, whole, profile = self.prepared.card, self.prepared.whole, self.prepared.profile
        assert card.training is not None
        scratch, classes = card.training.epochs * len(data.load(card, "train")), len(card.classes)
        outcome = Outcome(run.whole["accuracy"], run.whole["by_class"], {}, {}, 0.0)
        join = JoinShape((whole.embed_dim,), 0, classes)
        rows = [Row(page.WHOLE, (whole,), join, card.training.seed, outcome, scratch, self.prepared.whole_us)]
        outcomes = run.outcomes()
        for case, name in zip(ROWS, (page.PRUNED, page.SPLIT), strict=True):
            networks, plan = self._sub_models(case), self.plans[case].plan
            assert plan is not None
            join = JoinShape(tuple(n.embed_dim for n in networks), profile.fusion_hidden, classes)
            rows.append(Row(name, networks, join, case.seed, outcomes.get(case), scratch, plan.latency_us))
        return rows

    def _conv_rows(self) -> list[Row]:
        hidden, num_boards = self.prepared.profile.fusion_hidden, len(self._sub_models(Case(OURS)))
        made = ConvRows(self.prepared.card, self.effort, hidden, self.folder, self.until)
        plain, spiking = self._widest(0), self._widest(STEPS)
        rows = []
        for name, shape, boards in (
            (page.SMALL_CNN, plain, 1),
            (page.SPLIT_CNN, plain, num_boards),
            (page.SPIKING_CNN, spiking, num_boards),
        ):
            join = JoinShape((shape.filters[-1],) * boards, 0 if boards == 1 else hidden, shape.num_classes)
            row = Row(name, (shape,) * boards, join, self.effort.seed)
            task = self.progress.add_task(f"{self.effort.subject}: {name}", total=None)
            with suppress(TimeUpError):
                result = made.unsplit(shape) if boards == 1 else made.split(shape, boards)
                row = replace(row, outcome=result.outcome, scratch_images=result.scratch_images)
            rows.append(row)
            self.progress.remove_task(task)
        return rows

    def _widest(self, steps: int) -> ConvShape:
        """Return the widest network whose features take no longer than the split ViT's slowest sub-model."""
        sub_models = list(dict.fromkeys(self._sub_models(Case(OURS))))

        def side_by_side(widths: Sequence[int]) -> tuple[float, list[float]]:
            times = self._times([*sub_models, *map(self._conv_shape, widths)], self.effort.search_rounds)
            return max(times[: len(sub_models)]), times[len(sub_models) :]

        width = largest_width(side_by_side, self.effort.widths, 1 / max(1, steps))
        return self._conv_shape(width, steps)

    def _conv_shape(self, width: int, steps: int = 0) -> ConvShape:
        whole = self.prepared.whole
        return ConvShape(whole.in_channels, whole.image_sides, whole.num_classes, filters_of_width(width), steps)

    def _sub_models(self, case: Case) -> tuple[Shape, ...]:
        plan = self.plans[case].plan
        assert plan is not None
        return tuple(shapes_of(self.prepared, plan))

    def _times(self, shapes: Sequence[TimedShape], num_rounds: int) -> list[float]:
        """Return times measured now, or those of the same networks measured before."""
        key = result_key([[type(s).__name__, asdict(s)] for s in shapes], num_rounds, code_hash(_TIMING))
        task = self.progress.add_task(f"{self.effort.subject}: networks to time", total=None)
        times: list[float] = cached(self.folder / f"times-{key}.json", lambda: times_us(shapes, num_rounds))
        self.progress.remove_task(task)
        return times


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Finished results are kept: the same command continues from there.\n")
        sys.exit(130)
