"""Plans of instances with odd structure against brute force, and floors that fall with the number of classes."""

import dataclasses
import itertools

import numpy as np
import pytest

from planner.errors import InfeasibleError
from planner.rules.check import check
from planner.solver import SolveOptions, solve
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.search import SearchRequest
from planner.solver.search import InstanceSearch
from tests.helpers.goals import floored
from tests.helpers.odd_instances import odd
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import best_of
from tests.helpers.sub_model_enumeration import exact_costs

ALL = range(500)
QUICK = range(0, 500, 8)


def agrees(seed: int) -> bool:
    """Assert that the plan is the best of all plans, proven; return whether there is one."""
    profile, fleet, goal = odd(seed)
    best = best_of(profile, fleet, goal)
    try:
        plan = solve(profile, fleet, goal, SolveOptions(advice=False))
    except InfeasibleError:
        assert best is None, seed
        return False
    assert best is not None, seed
    assert check(plan, profile, fleet) == []
    if goal.objective == "energy":
        assert plan.value == pytest.approx(float(best.value), rel=1e-6), seed
    else:
        assert plan.value == best.value, seed
        assert plan.latency_us == best.latency_us or not goal.leave_idle, seed
    assert plan.status == "optimal", seed
    return True


def test_odd_instances_have_the_best_plan() -> None:
    """One class, same classes, devices that differ in links only, budgets and floors at the edge."""
    found = [agrees(seed) for seed in QUICK]
    assert min(sum(found), len(found) - sum(found)) >= 5


@pytest.mark.slow
def test_many_odd_instances_have_the_best_plan() -> None:
    """All 500."""
    for seed in set(ALL).difference(QUICK):
        agrees(seed)


def with_needs(instance: Instance, seed: int) -> Instance:
    """Return an instance where what a class needs rises and falls with the number of classes beside it."""
    rng = np.random.default_rng(seed)
    options = []
    for option in instance.options:
        factors = rng.uniform(0.5, 1.3, option.need.shape)
        need = np.minimum(instance.units.importance.sum(axis=1)[:, None], option.need * factors).astype(np.int64)
        options.append(dataclasses.replace(option, need=need))
    return dataclasses.replace(instance, options=tuple(options))


def least_latency_us(instance: Instance) -> int:
    """Return the least latency [us] by trying every choice of class subsets, each device alone on its path."""
    costs = exact_costs(instance)
    devices = [
        [(o, mask) for o in own for mask in range(1, costs.shape[1]) if costs[o, mask] < NEVER] + [None]
        for g, group in enumerate(instance.groups)
        for own in [[o for o, option in enumerate(instance.options) if option.group == g]]
        for _ in group.names
    ]
    least = NEVER
    for picks in itertools.product(*devices):
        used = [pick for pick in picks if pick is not None]
        if not used or int(np.bitwise_or.reduce([mask for _, mask in used])) != costs.shape[1] - 1:
            continue
        slowest = max(instance.options[o].alone_us + int(costs[o, mask]) for o, mask in used)
        least = min(least, slowest + instance.fusion_us(sum(instance.options[o].embed_dim for o, _ in used)))
    return least


def test_needs_may_fall_with_the_number_of_classes() -> None:
    """A device that serves more classes may need less of each: no bound of fewer classes holds for more then."""
    found = 0
    for seed in range(16):
        drawn = random_profile(seed, num_classes=3, num_groups=2, kinds=("a",) if seed % 2 else ())
        fleet = random_fleet(drawn, seed, num_devices=3, tightness=(0.4, 0.8)[seed % 2])
        instance = with_needs(build_instance(drawn, fleet, floored()), seed)
        least = least_latency_us(instance)
        result = InstanceSearch(instance, Clock(60)).run(SearchRequest(ObjectiveFunction(instance)))
        if least >= NEVER:
            assert result.placed is None
            assert result.bound is None
            continue
        found += 1
        assert result.placed is not None
        assert (instance.fleet_latency_us(result.placed), result.bound) == (least, least), seed
    assert found >= 8
