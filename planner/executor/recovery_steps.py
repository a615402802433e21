"""Accuracies on validation images after each step of a recovery, and warnings where the plan's prediction fails.

A prediction fails where the result is far below its interval, and says little where the run has trained for less than
it holds for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.executor.bundle import METRICS
from planner.schema import Plan, PredictedAccuracy
from planner.units import count_noun, format_share

# A result is far below the plan if it is so much below the prediction's interval.
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


def warnings(steps: Sequence[TrainingSteps], plan: Plan, epochs: float) -> list[str]:
    """Return a sentence for each reason to doubt that the plan's predicted accuracy is reached.

    Args:
        steps: Accuracies of the run; none if they are not known.
        plan: The plan that was executed.
        epochs: Budget of the run.
    """
    predicted = plan.predicted_accuracy
    if predicted is None:
        return []
    found = [] if (reached := _reached(steps)) is None else _far_below(reached, predicted)
    if epochs < predicted.epochs:
        found.append(
            f"the prediction is for {count_noun(predicted.epochs, 'epoch')} of retraining; this run had {epochs:g}."
        )
    return found


def _reached(steps: Sequence[TrainingSteps]) -> float | None:
    """Return the fused accuracy at the end; None if it is not known."""
    if not steps:
        return None
    return steps[-1].start if steps[-1].trained is None else steps[-1].trained


def _far_below(reached: float, predicted: PredictedAccuracy) -> list[str]:
    if predicted.low - reached <= _FAR_SHARE:
        return []
    accuracy, low, high = (format_share(x, 1) for x in (predicted.accuracy, predicted.low, predicted.high))
    return [
        f"the fused accuracy is {format_share(reached, 1)} on validation images, the plan predicts {accuracy} ({low} "
        f"to {high}): train longer, or ask for a smaller drop of accuracy, before you deploy."
    ]
