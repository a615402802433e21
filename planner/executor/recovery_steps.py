"""Accuracies on validation images after each step of a recovery, and a warning where the end is far below the plan."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.executor.bundle import METRICS
from planner.schema import Plan
from planner.units import format_share

# A result is far below the plan if it lacks more than so many of the prediction's errors, and more than this share.
_FAR_ERRORS, _FAR_SHARE = 3.0, 0.05


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
    """Return the trainings of a bundle in the order of its metrics; the last one's accuracy is the fused one."""
    lines = [json.loads(line) for line in (bundle / METRICS).read_text().splitlines()]
    trainings: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        trainings.setdefault(line["training"], []).append(line)
    return tuple(_steps(name, epochs) for name, epochs in trainings.items())


def _steps(name: str, epochs: Sequence[Mapping[str, Any]]) -> TrainingSteps:
    start, best = epochs[0], [epoch for epoch in epochs if epoch["best"]][-1]
    trained = best["held_accuracy"] if len(epochs) > 1 else None
    return TrainingSteps(name, start["accuracy_as_cut"], start["held_accuracy"], trained)


def warning(steps: Iterable[TrainingSteps], plan: Plan) -> str | None:
    """Return a warning if the fused accuracy on validation images is far below what the plan promises."""
    *_, fused = steps
    promise = plan.predicted_accuracy
    reached = fused.start if fused.trained is None else fused.trained
    if promise is None or reached is None:
        return None
    if promise.accuracy - reached <= max(_FAR_ERRORS * promise.error, _FAR_SHARE):
        return None
    return (
        f"the fused accuracy is {format_share(reached, 1)} on validation images, the plan promised "
        f"{format_share(promise.accuracy, 1)}: train longer, or ask for a smaller drop of accuracy, before you deploy."
    )
