"""Results as the page needs them: cells of tables, means over seeds, latencies at equal accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from statistics import mean

from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.plans import Case


@dataclass(frozen=True)
class Costs:
    """Costs of a plan; sizes are shares of the whole model's, of the largest sub-model and of all together."""

    predicted_us: float
    measured_us: float
    memory_bytes: int  # weights and activations of the largest
    params: tuple[float, float]
    macs: tuple[float, float]
    # Predicted / measured of each sub-model.
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """Result of one case: the reason why there is no plan, or its costs, and its outcome if it was executed."""

    reason: str = ""
    costs: Costs | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class WholeModel:
    """Accuracy and costs of the whole model, and of a sub-model at the paper's ratio."""

    accuracy: float
    by_class: tuple[float, ...]
    training: str
    size: str
    params: int
    macs: int
    predicted_us: float
    measured_us: float
    # A sub-model at 2/12 of every width: params and MACs of the whole divided by its own, and its time [us].
    small_params: float
    small_macs: float
    small_us: float


@dataclass(frozen=True)
class Study:
    """Results of one subject."""

    subject: str
    budget: str
    whole: WholeModel
    cells: dict[Case, Cell] = field(default_factory=dict)

    def outcomes(self, row: str, fleet: str, limit: Fraction) -> list[Outcome]:
        """Return the outcomes of all seeds."""
        return [c.outcome for c in self._cells(row, fleet, limit) if c.outcome is not None]

    def costs(self, row: str, fleet: str, limit: Fraction) -> Costs | None:
        """Return the costs of the first seed that has a plan."""
        return next((c.costs for c in self._cells(row, fleet, limit) if c.costs is not None), None)

    def reason(self, row: str, fleet: str, limit: Fraction) -> str:
        """Return why there is no plan, of the first seed that has none."""
        return next((c.reason for c in self._cells(row, fleet, limit) if c.reason), "")

    def accuracy(self, row: str, fleet: str, limit: Fraction) -> float | None:
        """Return the mean fused accuracy over the seeds; None if nothing was executed."""
        outcomes = self.outcomes(row, fleet, limit)
        return mean(o.fused for o in outcomes) if outcomes else None

    def _cells(self, row: str, fleet: str, limit: Fraction) -> list[Cell]:
        return [c for case, c in self.cells.items() if (case.row, case.fleet, case.limit) == (row, fleet, limit)]


@dataclass(frozen=True)
class LatencyAtAccuracy:
    """Latency [us] at which a method reaches an accuracy.

    None with a bound where it lies outside the measured range: above the longest latency (`above`), or at most the
    shortest.
    """

    latency_us: float | None
    bound_us: float
    above: bool = False


def latency_at_accuracy(points: Sequence[tuple[float, float]], accuracy: float) -> LatencyAtAccuracy | None:
    """Return the lowest latency at which a method's curve reaches an accuracy; None without points.

    Args:
        points: Latency [us] and accuracy, in any order; interpolated linearly between neighbours.
        accuracy: The accuracy to reach.
    """
    line = sorted(points)
    if not line:
        return None
    if line[0][1] >= accuracy:
        return LatencyAtAccuracy(None, line[0][0])
    for (x0, y0), (x1, y1) in pairwise(line):
        if y1 >= accuracy:
            return LatencyAtAccuracy(x0 + (accuracy - y0) / (y1 - y0) * (x1 - x0), x1)
    return LatencyAtAccuracy(None, line[-1][0], above=True)


def half_range(values: Sequence[float]) -> float | None:
    """Return half the range of values; None for fewer than two."""
    return (max(values) - min(values)) / 2 if len(values) > 1 else None
