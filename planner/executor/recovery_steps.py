"""Accuracies on validation images after each step of a recovery, and a warning where the end is far below the plan."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.executor.bundle import METRICS
from planner.schema import Plan
from planner.units import format_share

# A result is far below the plan if it lacks more than so many of the prediction's errors, and more than this share.
_FAR_SHARE = 0.05


@dataclass(frozen=True)
class TrainingSteps:
    """Accuracies of one training: as cut, after its start (least squares, where there are any), at its best epoch.

    All are of the same validation images, shares of them; None where that was not measured.
    """

    name: str
    as_cut: float | None
    start: float | None
    trained: float | None


def read_steps(bundle: Path) -> tuple[TrainingSteps, ...]:
    """Return the trainings of a bundle in the order of its metrics; the last one's accuracy is the fused one.

    Empty where the metrics are gone, or of a version that did not measure accuracies: a bundle does not need them.
    """
    try:
        lines = [json.loads(line) for line in (bundle / METRICS).read_text().splitlines()]
        trainings: list[list[Mapping[str, Any]]] = []
        # A device may be called as a fusion's training is, so the start tells where another training begins.
        for line in lines:
            if line["epoch"] == 0:
                trainings.append([])
            trainings[-1].append(line)
        return tuple(map(_steps, trainings))
    except (OSError, ValueError, KeyError, IndexError):
        return ()


def _steps(epochs: Sequence[Mapping[str, Any]]) -> TrainingSteps:
    start, best = epochs[0], [epoch for epoch in epochs if epoch["best"]][-1]
    trained = best["held_accuracy"] if len(epochs) > 1 else None
    return TrainingSteps(start["training"], start["accuracy_as_cut"], start["held_accuracy"], trained)


def warning(steps: Sequence[TrainingSteps], plan: Plan) -> str | None:
    """Return a warning if the fused accuracy on validation images is far below what the plan promises."""
    if not steps:
        return None
    fused, promise = steps[-1], plan.predicted_accuracy
    reached = fused.start if fused.trained is None else fused.trained
    if promise is None or reached is None:
        return None
    if promise.low - reached <= _FAR_SHARE:
        return None
    return (
        f"the fused accuracy is {format_share(reached, 1)} on validation images, the plan promised "
        f"{format_share(promise.accuracy, 1)}: train longer, or ask for a smaller drop of accuracy, before you deploy."
    )
