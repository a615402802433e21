"""Rows of the table: each row's networks and what joins them, its accuracy, sizes, times and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.accuracy.execution import Outcome
from benchmarks.rivals.networks import ConvShape, conv_counts
from benchmarks.rivals.side_by_side import JoinShape, TimedShape
from planner.network import counts
from planner.network.counts import Counts
from planner.network.vit import Shape


@dataclass(frozen=True)
class Row:
    """One row: networks of the devices, what joins their features, and how good they are together."""

    name: str
    networks: tuple[Shape | ConvShape, ...]
    join: JoinShape
    seed: int
    # None where the row was not run yet, as the images are.
    outcome: Outcome | None = None
    # Images, all epochs together, from which the network learned that the row's own are cut from, or its own.
    scratch_images: int | None = None
    predicted_us: int | None = None

    @property
    def sizes(self) -> list[Counts]:
        """MACs of one answer and parameters of each network, without what joins them."""
        return [conv_counts(n) if isinstance(n, ConvShape) else counts.exact(n) for n in self.networks]

    def measured_us(self, times: Mapping[TimedShape, float]) -> float:
        """Return the time of an answer [us]: of the slowest network, a spiking one's steps one by one, and the join."""
        return max(times[one_pass(n)] * _num_passes(n) for n in self.networks) + times[self.join]


def one_pass(network: Shape | ConvShape) -> Shape | ConvShape:
    """Return the network that is timed: of a spiking one a pass, with ReLU in place of its neurons."""
    return replace(network, steps=0) if isinstance(network, ConvShape) else network


def timed_shapes(rows: Sequence[Row]) -> list[TimedShape]:
    """Return all networks and joins of the rows, each once."""
    networks = [one_pass(n) for row in rows for n in row.networks]
    return list(dict.fromkeys([*networks, *(row.join for row in rows)]))


def _num_passes(network: Shape | ConvShape) -> int:
    return max(1, network.steps) if isinstance(network, ConvShape) else 1
