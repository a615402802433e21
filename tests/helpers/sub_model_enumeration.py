"""Every sub-model of small instances by enumeration: the oracle for sub-models of one option and class subset."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from planner.arrays import Bools, Ints
from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.cost_table import MEMORY
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import Option
from planner.solver.problem.subsets import classes_of
from tests.helpers.brute_costs import keeps_anchor
from tests.helpers.random_instances import random_fleet, random_profile, with_storage
from tests.helpers.solver_instances import sharpened

# From `STORED` on, some devices have a storage budget.
SEEDS, STORED = range(36), 24
# Larger than `NEVER`, so that any bound is below it.
NO_SUB_MODEL = 2 * NEVER


@lru_cache
def instance_of(seed: int) -> Instance:
    """Return 4 classes, 8 units, 3 devices; with fixed charges, several widths, precisions and small budgets."""
    profile = random_profile(
        seed,
        widths=(8, 4) if seed % 3 == 0 else (8,),
        kinds=("a", "b") if seed % 4 else (),
        penalties=seed % 2 == 0,
    )
    profile = sharpened(profile) if seed % 5 < 3 else profile
    fleet = random_fleet(profile, seed, tightness=(0.3, 0.5, 0.8, 2.0)[seed % 4], choices=seed % 2 == 0)
    if seed >= STORED:
        profile, fleet = with_storage(profile, fleet, seed)
    goal = Goal(min_retention=(0.3, 0.5, 0.7, 0.9)[seed // 4 % 4] if seed % 2 else 0.5)
    return build_instance(profile, fleet, goal)


@lru_cache
def all_kept(num_units: int) -> list[tuple[int, ...]]:
    """Return every set of units."""
    return [kept for n in range(num_units + 1) for kept in itertools.combinations(range(num_units), n)]


def kept_rows(num_units: int) -> Bools:
    """Return every set of units as a row, in the order of `all_kept`, (S, U)."""
    rows = np.zeros((2**num_units, num_units), dtype=bool)
    for row, kept in zip(rows, all_kept(num_units), strict=True):
        row[list(kept)] = True
    return rows


@dataclass(frozen=True)
class SubModelTable:
    """Every set of units on an option: compute time [us] and budgets [bytes] by `rules.cost`, importance (S, C)."""

    option: Option
    compute_us: Ints
    used_bytes: Ints  # (S, M)
    budget_bytes: Ints  # (M,)
    importance: Ints
    keeps_anchor: Bools

    def meets_floors(self, classes: tuple[int, ...]) -> Bools:
        """Return which sets of units keep the anchor head and the floors of these classes, (S,)."""
        some = list(classes)
        met: Bools = np.all(self.importance[:, some] >= self.option.need[some, len(some) - 1], axis=1)
        return met & self.keeps_anchor

    def possible(self, classes: tuple[int, ...]) -> Bools:
        """Return which sets of units are sub-models for these classes, (S,)."""
        return self.meets_floors(classes) & self.in_budgets

    @property
    def in_budgets(self) -> Bools:
        """Sets of units that are within each budget, (S,)."""
        within: Bools = np.all(self.used_bytes <= self.budget_bytes, axis=1)
        return within

    def cheapest_us(self, classes: tuple[int, ...]) -> int:
        """Return the least compute time [us]; `NO_SUB_MODEL` where there is none."""
        return int(self.compute_us[self.possible(classes)].min(initial=NO_SUB_MODEL))

    def smallest_bytes(self, classes: tuple[int, ...], budget: int = MEMORY) -> int:
        """Return the least use of a budget [bytes], however large they are; `NO_SUB_MODEL` where there is none."""
        return int(self.used_bytes[self.meets_floors(classes), budget].min(initial=NO_SUB_MODEL))


def enumerate_sub_models(instance: Instance, option: Option) -> SubModelTable:
    """Return every set of units on an option."""
    kept = all_kept(len(instance.units))
    use = np.array([list(instance.budget_use(option, some).values()) for some in kept])  # (S, M, 2)
    return SubModelTable(
        option,
        np.array([instance.compute_us(option, some) for some in kept]),
        use[:, :, 0],
        use[0, :, 1],
        np.array([instance.units.importance[:, list(some)].sum(axis=1) for some in kept]),
        keeps_anchor(instance.profile.model_dump(mode="json"), kept_rows(len(instance.units))),
    )


@cache
def table_of(seed: int, o: int) -> SubModelTable:
    """Return every set of units on an option of `instance_of`."""
    instance = instance_of(seed)
    return enumerate_sub_models(instance, instance.options[o])


@cache
def cheapest_by_enumeration(seed: int, o: int, classes: tuple[int, ...]) -> int:
    """Return the least compute time [us] on an option of `instance_of`."""
    return table_of(seed, o).cheapest_us(classes)


def exact_costs(instance: Instance) -> Ints:
    """Return t(o, S) [us] by enumeration; `NEVER` where there is no sub-model or the demands forbid it, (O, 2^C)."""
    costs = np.full((len(instance.options), 2**instance.num_classes), NEVER)
    for o, option in enumerate(instance.options):
        table = enumerate_sub_models(instance, option)
        for mask in range(1, costs.shape[1]):
            if instance.allows(option.group, classes_of(mask)):
                costs[o, mask] = min(NEVER, table.cheapest_us(classes_of(mask)))
    return costs


def subsets(instance: Instance) -> list[tuple[int, ...]]:
    """Return every nonempty class subset."""
    classes = range(instance.num_classes)
    return [some for n in classes for some in itertools.combinations(classes, n + 1)]


def cases(seed: int) -> Iterator[tuple[Instance, int, Option, tuple[int, ...]]]:
    """Yield every option and class subset of an instance."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        for classes in subsets(instance):
            yield instance, o, option, classes
