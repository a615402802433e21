"""The dynamic program over class subsets, at random costs, against every assignment."""

import dataclasses

import numpy as np
import pytest

from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.subset_dp import SubsetDP
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER, SurvivalRule
from tests.helpers.column_assignments import columns_within, covers, enumerable_seeds
from tests.helpers.varied_instances import varied_instance

SEEDS = enumerable_seeds()[::2]


def random_costs(seed: int) -> SubsetCosts:
    """Return random bounds of `varied`, without its rules of survival."""
    instance, rng = varied_instance(seed), np.random.default_rng(seed)
    rule = SurvivalRule(1, frozenset(range(len(instance.groups))))
    costs = SubsetCosts(dataclasses.replace(instance, survival_rules=(rule,)), NO_WARM_START)
    costs.lower_bound[:] = rng.integers(0, 100, costs.lower_bound.shape)
    costs.lower_bound[rng.random(costs.lower_bound.shape) < 0.3] = NEVER
    costs.lower_bound[:, 0] = NEVER
    costs.upper_bound[:] = costs.lower_bound + 30 * (rng.random(costs.lower_bound.shape) < 0.5)
    return costs


@pytest.mark.parametrize("seed", SEEDS)
def test_bottlenecks_and_embed_dims_are_least(seed: int) -> None:
    """No assignment is faster; within a limit none has fewer embed dims, nor as few and fewer columns to build."""
    costs = random_costs(seed)
    instance, dp, clock = costs.instance, SubsetDP(costs), Clock(60)
    paths_us = np.random.default_rng(seed).integers(0, 40, len(instance.options))
    times = np.minimum(NEVER, costs.lower_bound + paths_us[:, None])
    possible = list(covers(instance, columns_within(times)))
    slowest_us = dp.bottleneck_us(paths_us, clock)
    slowest = [max(int(times[i.option, i.mask]) for i in some) for some in possible]
    assert min(NEVER, slowest_us) == min(slowest, default=NEVER)
    for limit_us in (slowest_us, slowest_us + 15, slowest_us - 1):
        limits = limit_us - paths_us
        in_time = [some for some, us in zip(possible, slowest, strict=True) if us <= limit_us]
        # Weights in the order that the program minimises: embed dims, then columns that are still to be built.
        weights = [
            (
                sum(instance.options[i.option].embed_dim for i in some),
                sum(int(costs.upper_bound[i.option, i.mask] > limits[i.option]) for i in some),
            )
            for some in in_time
        ]
        if not in_time or limit_us >= NEVER:
            # More than all devices have together.
            assert limit_us >= NEVER or dp.embed_dims(limits, clock) > 10**6
            continue
        assert dp.embed_dims(limits, clock) == min(weights)[0]
        chosen = sorted(dp.columns(limits, clock))
        assert weights[[sorted(some) for some in in_time].index(chosen)] == min(weights)


def test_it_decides_where_devices_share_only_embed_dims() -> None:
    """Neither with copies of classes nor with a limited number of devices is it exact."""
    costs = random_costs(SEEDS[0])
    max_use = np.full(costs.instance.num_resources, NEVER)
    assert SubsetDP(costs).decides(max_use)
    max_use[EMBED_DIMS] = 8
    assert SubsetDP(costs).decides(max_use)
    max_use[DEVICES] = 2
    assert not SubsetDP(costs).decides(max_use)
    max_use[DEVICES] = NEVER
    copies = SurvivalRule(2, costs.instance.survival_rules[0].groups)
    costs.instance = dataclasses.replace(costs.instance, survival_rules=(copies,))
    assert not SubsetDP(costs).decides(max_use)
