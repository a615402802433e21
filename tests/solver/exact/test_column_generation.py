"""Assignments of least energy by column generation, against every assignment."""

from collections.abc import Callable

import numpy as np
import pytest

from planner.arrays import Ints
from planner.schema import Goal
from planner.solver.exact.column_generation import cheapest_cover
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER
from tests.helpers.column_assignments import columns_within, covers, dearer_costs, enumerable_seeds, varied_costs
from tests.helpers.varied_instances import varied, varied_instance

SEEDS = enumerable_seeds()


@pytest.mark.parametrize("costs_of", [varied_costs, dearer_costs])
def test_the_cover_takes_least_energy(costs_of: Callable[[int], Ints]) -> None:
    """Within random limits of time and resources, no assignment takes less energy."""
    found = 0
    for seed in SEEDS:
        profile, fleet, goal = varied(seed)
        goal = Goal.model_validate(goal.model_dump() | {"objective": "energy", "max_latency_ms": 1000})
        instance, rng = build_instance(profile, fleet, goal), np.random.default_rng(seed)
        table = costs_of(seed)
        costs = SubsetCosts(instance, NO_WARM_START)
        costs.lower_bound[:] = table
        times = table[table < NEVER]
        limits = np.array([int(rng.choice(times)) * 2 if len(times) else 0 for _ in instance.options])
        max_use = np.full(instance.num_resources, NEVER)
        if rng.random() < 0.5:
            max_use[DEVICES] = rng.integers(1, 4)
        if rng.random() < 0.3:
            max_use[EMBED_DIMS] = rng.integers(4, 25)

        chosen = cheapest_cover(costs, limits, max_use, Clock(60))
        energies = {
            i: instance.options[i.option].energy_per_us * int(table[i.option, i.mask])
            for i in columns_within(table, limits)
        }
        possible = [
            columns
            for columns in covers(instance, list(energies))
            if (instance.used(instance.options[i.option] for i in columns) <= max_use).all()
        ]
        assert (chosen is None) == (not possible), seed
        if chosen is not None:
            found += 1
            assert sorted(chosen) in [sorted(columns) for columns in possible]
            assert sum(energies[i] for i in chosen) == min(sum(energies[i] for i in some) for some in possible), seed
    assert found >= 20


def test_relaxations_are_solved_where_they_matter() -> None:
    """The cover found with few relaxations costs as much as that found with all of them."""
    seed = next(seed for seed in SEEDS if varied(seed)[2].objective == "energy" and covered(seed) and seed % 3 == 1)
    profile, fleet, goal = varied(seed)
    instance = build_instance(profile, fleet, goal)
    lazy, eager = SubsetCosts(instance, NO_WARM_START), SubsetCosts(instance, NO_WARM_START)
    for o in range(len(instance.options)):
        for mask in range(1, 2**instance.num_classes):
            eager.relax(Column(o, mask))
    limits, max_use = np.full(len(instance.options), NEVER - 1), np.full(instance.num_resources, NEVER)
    values = []
    for costs in (lazy, eager):
        chosen = cheapest_cover(costs, limits, max_use, Clock(60))
        assert chosen is not None
        values.append(
            sum(instance.options[i.option].energy_per_us * int(costs.lower_bound[i.option, i.mask]) for i in chosen)
        )
        assert all(costs.is_relaxed(i) for i in chosen)
    assert values[0] == values[1]


def covered(seed: int) -> bool:
    """Return whether `varied` has any assignment."""
    return any(True for _ in covers(varied_instance(seed), columns_within(varied_costs(seed))))


def test_out_of_time_is_an_error() -> None:
    """Without any time neither a cover nor its absence is claimed."""
    seed = next(seed for seed in SEEDS if varied(seed)[2].objective == "energy" and covered(seed))
    instance = build_instance(*varied(seed))
    limits, max_use = np.full(len(instance.options), NEVER - 1), np.full(instance.num_resources, NEVER)
    with pytest.raises(TimeoutError):
        cheapest_cover(SubsetCosts(instance, NO_WARM_START), limits, max_use, Clock(0))
