"""Options (a device group at one embed dim and one precision) and sub-models that run on them."""

from dataclasses import dataclass

from planner.arrays import Ints
from planner.rules.cost import DeviceCost, WidthCost
from planner.solver.problem.cost_table import CostTable


@dataclass(frozen=True, eq=False)
class Option:
    """A device group at one embed dim and precision, with the data of its sub-model problem."""

    group: int
    width_cost: WidthCost
    device: DeviceCost
    count: int
    costs: CostTable
    free_grains: Ints  # (M,) what each budget leaves for kept units
    need: Ints  # (C, C): importance that class c needs beside n - 1 others, [c, n - 1]
    alone_us: int  # sending the input and returning the features over free paths
    use: Ints  # (R,): how much of each resource a used device takes
    energy_per_us: int  # in the instance's units of energy

    @property
    def embed_dim(self) -> int:
        """Width of a token."""
        return self.width_cost.width.embed_dim


@dataclass(frozen=True)
class PlacedSubModel:
    """A sub-model on an option: its classes and its kept units."""

    option: Option
    classes: tuple[int, ...]
    kept: tuple[int, ...]
