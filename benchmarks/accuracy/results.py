"""What was found, as the page needs it: cells of tables, means over seeds, latencies at equal accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from statistics import mean

from benchmarks.accuracy.execution import Outcome
from benchmarks.accuracy.plans import Case


@dataclass(frozen=True)
class Costs:
    """What a plan costs; sizes as shares of the whole model's, of the largest sub-model and of all together."""

    predicted_us: float
    measured_us: float
    memory_bytes: int  # weights and activations of the largest
    params: tuple[float, float]
    macs: tuple[float, float]
    # Predicted / measured of each sub-model.
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """One case: why there is no plan, or what it costs, and what came out if it was carried out."""

    reason: str = ""
    costs: Costs | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class WholeModel:
    """The whole model, and what the paper's ratio makes of it."""

    accuracy: float
    by_class: tuple[float, ...]
    training: str
    size: str
    params: int
    macs: int
    predicted_us: float
    measured_us: float
    # One sub-model at 2/12 of every width: params and MACs of the whole divided by its own, and its time [us].
    small_params: float
    small_macs: float
    small_us: float


@dataclass(frozen=True)
class Study:
    """One subject's results."""

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
        """Return the mean fused accuracy over the seeds; None if nothing was carried out."""
        found = self.outcomes(row, fleet, limit)
        return mean(o.fused for o in found) if found else None

    def _cells(self, row: str, fleet: str, limit: Fraction) -> list[Cell]:
        return [c for case, c in self.cells.items() if (case.row, case.fleet, case.limit) == (row, fleet, limit)]


@dataclass(frozen=True)
class Reached:
    """The latency [us] at which a method has an accuracy.

    None with a bound: it is only known to be more than the longest (`above`) or at most the shortest that was tried.
    """

    latency_us: float | None
    bound_us: float
    above: bool = False


def reached(points: Sequence[tuple[float, float]], accuracy: float) -> Reached | None:
    """Return where a method's curve first comes to an accuracy, going up in latency; None without points.

    Args:
        points: Latency [us] and accuracy, in any order; straight lines are drawn between neighbours.
        accuracy: To be reached.
    """
    line = sorted(points)
    if not line:
        return None
    if line[0][1] >= accuracy:
        return Reached(None, line[0][0])
    for (x0, y0), (x1, y1) in pairwise(line):
        if y1 >= accuracy:
            return Reached(x0 + (accuracy - y0) / (y1 - y0) * (x1 - x0), x1)
    return Reached(None, line[-1][0], above=True)


def spread(values: Sequence[float]) -> float | None:
    """Return half the range of values; None of fewer than two."""
    return (max(values) - min(values)) / 2 if len(values) > 1 else None
