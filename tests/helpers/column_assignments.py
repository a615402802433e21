"""Every assignment of columns to the devices of small instances: the oracle for assignments at given costs."""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from planner.arrays import Ints
from planner.solver.problem.column import Column
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from tests.helpers.placements import devices_of
from tests.helpers.sub_model_enumeration import exact_costs
from tests.helpers.varied_instances import VARIED, varied_instance

MAX_ASSIGNMENTS = 3500


def choices_of(instance: Instance, columns: Sequence[Column]) -> list[list[Column | None]]:
    """Return for each device its columns, and None for an idle device where it may be idle."""
    choices: list[list[Column | None]] = []
    for _, g in devices_of(instance):
        here: list[Column | None] = [i for i in columns if instance.options[i.option].group == g]
        choices.append(here if instance.groups[g].pinned else [None, *here])
    return choices


def covers(instance: Instance, columns: Sequence[Column]) -> Iterator[list[Column]]:
    """Yield every choice of at most one column for each device that serves every class often enough."""
    for picks in itertools.product(*choices_of(instance, columns)):
        used = [i for i in picks if i is not None]
        if used and all(
            sum(i.mask >> c & 1 and instance.options[i.option].group in rule.groups for i in used) >= rule.min_devices
            for rule in instance.survival_rules
            for c in range(instance.num_classes)
        ):
            yield used


def columns_within(costs: Ints, limits: Ints | int = NEVER - 1) -> list[Column]:
    """Return the columns whose costs (O, 2^C) are within limits (O,)."""
    within = costs <= (limits if isinstance(limits, int) else limits[:, None])
    return [
        Column(o, mask)
        for o in range(len(costs))
        for mask in range(1, costs.shape[1])
        if within[o, mask] and costs[o, mask] < NEVER
    ]


@cache
def enumerable_seeds() -> list[int]:
    """Return the seeds of `varied` with few enough assignments to try them all."""
    found = []
    for seed in VARIED:
        if seed % 3 < 2 and seed % 4 < 3:
            instance = varied_instance(seed)
            columns = [Column(o, m) for o in range(len(instance.options)) for m in range(1, 2**instance.num_classes)]
            if columns and math.prod(map(len, choices_of(instance, columns))) <= MAX_ASSIGNMENTS:
                found.append(seed)
    return found


@cache
def varied_costs(seed: int) -> Ints:
    """Return t(o, S) of `varied` by enumeration, (O, 2^C)."""
    return exact_costs(varied_instance(seed))


def optimum(seed: int, objective: ObjectiveFunction, max_devices: int = NEVER) -> int:
    """Return the best objective of all assignments of `varied` with their cheapest sub-models; `NEVER` if none."""
    costs, options = varied_costs(seed), objective.instance.options
    return min(
        (
            objective.value([options[i.option] for i in some], [int(costs[i.option, i.mask]) for i in some])
            for some in covers(objective.instance, columns_within(costs))
            if len(some) <= max_devices
        ),
        default=NEVER,
    )


def dearer_costs(seed: int) -> Ints:
    """Return random costs between t(o, S) and the whole model's, the higher the larger the class subset, (O, 2^C)."""
    instance, rng, exact = varied_instance(seed), np.random.default_rng(seed), varied_costs(seed)
    whole = [instance.compute_us(option, range(len(instance.units))) for option in instance.options]
    per_class = rng.integers(0, 60, (len(exact), instance.num_classes))
    masks = np.arange(exact.shape[1])
    extra = per_class @ (masks[None, :] >> np.arange(per_class.shape[1])[:, None] & 1)
    return np.where(exact < NEVER, np.minimum(np.array(whole)[:, None], exact + extra), NEVER)
