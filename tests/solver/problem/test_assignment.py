"""Covers by CP-SAT against every assignment of the columns."""

import contextlib

import numpy as np
import pytest

from planner.arrays import Ints
from planner.solver.problem.assignment import cover
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER, Instance
from tests.helpers.column_assignments import columns_within, covers, enumerable_seeds, varied_costs
from tests.helpers.varied_instances import varied_instance

SEEDS = enumerable_seeds()


def drawn_limits(instance: Instance, rng: np.random.Generator) -> Ints:
    """Return limits of the devices and of the embed dims, either or none of which may bind."""
    max_use = np.full(instance.num_resources, NEVER)
    num_devices = sum(len(group.names) for group in instance.groups)
    if rng.random() < 0.5:
        max_use[DEVICES] = rng.integers(1, num_devices + 1)
    if rng.random() < 0.5:
        max_use[EMBED_DIMS] = rng.integers(4, 8 * num_devices + 1)
    return max_use


def within(instance: Instance, columns: list[Column], max_use: Ints) -> bool:
    """Return whether columns use no more than there is."""
    return bool((instance.used(instance.options[i.option] for i in columns) <= max_use).all())


@pytest.mark.parametrize("first", range(2))
def test_the_cover_is_the_lightest(first: int) -> None:
    """No assignment of random columns within random limits weighs less than the cover."""
    found = 0
    for seed in SEEDS[first::2]:
        instance, rng = varied_instance(seed), np.random.default_rng(seed)
        columns = [i for i in columns_within(varied_costs(seed)) if rng.random() < 0.7]
        weights = {i: int(rng.integers(0, 50)) for i in columns}
        max_use = drawn_limits(instance, rng)
        possible = [some for some in covers(instance, columns) if within(instance, some, max_use)]
        chosen = cover(instance, columns, list(weights.values()), max_use, Clock(60))
        assert (chosen is None) == (not possible), seed
        if chosen is not None:
            found += 1
            assert sorted(chosen) in [sorted(some) for some in possible]
            assert sum(weights[i] for i in chosen) == min(sum(weights[i] for i in some) for some in possible)
    assert found >= 8


def test_out_of_time_there_is_no_answer() -> None:
    """Without time for a proof a cover may be found, or none; it is never said that there is none."""
    seed = next(s for s in SEEDS if any(True for _ in covers(varied_instance(s), columns_within(varied_costs(s)))))
    instance, columns = varied_instance(seed), columns_within(varied_costs(seed))
    max_use = np.full(instance.num_resources, NEVER)
    with contextlib.suppress(TimeoutError):
        assert cover(instance, columns, [1] * len(columns), max_use, Clock(0)) is not None
