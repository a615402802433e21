"""Rows of the covering problem: every class on enough devices, no device twice, no resource overdrawn.

Parameters: columns i with device group g_i, class subset S_i and use a_ri of each resource r (devices, embed dims,
bytes on media); group g of n_g devices; survival rules (k, G): each class on at least k devices of the groups in G
(one rule, k = 1 and all groups, unless the fleet must survive).

Variables
    x_i   devices of group g_i that get column i        integer, 0..n_g

Constraints
    (1) sum_{i: c in S_i, g_i in G} x_i >= k      for each class c and rule (k, G)
    (2) sum_{i: g_i = g} x_i <= n_g               a device gets at most one; = n_g where classes are pinned to it
    (3) sum_i a_ri x_i <= max_use_r               for each resource r with a limit

The time limit of the devices is not a row: columns that are too slow are left out. CP-SAT models and linear programs
read these rows, so a demand has one form in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.arrays import Ints
from planner.solver.problem.instance import NEVER, DeviceGroup, SurvivalRule
from planner.solver.problem.option import Option


@dataclass(frozen=True)
class CoverRow:
    """Constraint (1) for one class and one rule."""

    class_index: int
    rule: SurvivalRule

    @property
    def min_devices(self) -> int:
        """Right-hand side k."""
        return self.rule.min_devices

    def counts(self, group: int) -> bool:
        """Return whether devices of a group count."""
        return group in self.rule.groups


@dataclass(frozen=True)
class GroupRow:
    """Constraint (2) for one device group."""

    group: int
    min_devices: int
    max_devices: int


@dataclass(frozen=True)
class ResourceRow:
    """Constraint (3) for one resource."""

    resource: int
    max_use: int

    def use(self, option: Option) -> int:
        """Return the coefficient of columns on an option."""
        return int(option.use[self.resource])


def cover_rows(rules: Sequence[SurvivalRule], num_classes: int) -> list[CoverRow]:
    """Return rows (1), class by class."""
    return [CoverRow(c, rule) for c in range(num_classes) for rule in rules]


def group_rows(groups: Sequence[DeviceGroup]) -> list[GroupRow]:
    """Return rows (2); all devices of a group are used where classes are pinned to them."""
    return [GroupRow(g, len(group.names) if group.pinned else 0, len(group.names)) for g, group in enumerate(groups)]


def resource_rows(max_use: Ints) -> list[ResourceRow]:
    """Return rows (3) of the resources that have a limit, (R,)."""
    return [ResourceRow(r, limit) for r, limit in enumerate(max_use.tolist()) if limit < NEVER]
