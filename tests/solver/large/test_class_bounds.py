"""Bounds for many classes from single classes: below the best plan, by brute force."""

import pytest

from planner.schema import Goal
from planner.solver.large import search
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.problem.objective import ObjectiveFunction
from tests.helpers.pencil import fleet, fleet_data, profile, profile_data
from tests.helpers.solver_instances import best_of
from tests.helpers.varied_instances import (
    VARIED,
    feasible_seeds,
    varied,
    varied_best,
    varied_instance,
    varied_slowest_us,
)


def test_the_fleets_are_of_all_sorts() -> None:
    """Survivors, shared media, several widths and options occur often, with a plan."""
    assert 80 <= len(feasible_seeds()) <= 160
    seen = [
        (
            varied_instance(seed).survival_rules[0].min_devices > 1,
            len(varied_instance(seed).survival_rules) > 1,
            bool(varied_instance(seed).us_per_byte),
            len({option.embed_dim for option in varied_instance(seed).options}) > 1,
            len(varied_instance(seed).options) > len(varied_instance(seed).groups),
            bool(varied_instance(seed).together or varied_instance(seed).apart),
        )
        for seed in feasible_seeds()
    ]
    assert min(map(sum, zip(*seen, strict=True))) >= 4, list(map(sum, zip(*seen, strict=True)))


@pytest.mark.parametrize("first", range(0, len(VARIED), 20))
def test_the_bounds_are_below_the_best_plan(first: int) -> None:
    """Bounds on the slowest device, the fusion and the fleet's latency, by flow and by intervals, hold."""
    for seed in set(feasible_seeds()) & set(range(first, first + 20)):
        of, on, goal = varied(seed)
        latency = best_of(of, on, Goal.model_validate(goal.model_dump() | {"objective": "latency"}))
        assert latency is not None
        instance, found_us = varied_instance(seed), varied_slowest_us(seed)
        bounds = ClassBounds(instance)
        by_flow, by_intervals = bounds.slowest_us(Clock(60)), IntervalDP(instance, bounds).slowest_us(Clock(60))
        assert by_flow is not None
        assert by_intervals is not None
        assert max(by_flow, by_intervals) <= found_us
        found = varied_best(seed)
        assert found is not None
        assert bounds.fusion_us(found_us) <= found.latency_us - found_us
        bound_us = search.latency_bound_us(instance)
        assert bound_us is not None
        assert bound_us <= latency.latency_us <= found.latency_us


@pytest.mark.parametrize("first", range(0, len(VARIED), 20))
def test_the_flow_is_below_the_best_plan(first: int) -> None:
    """Within the time of the best plan there is a flow with no more embed dims, devices and energy."""
    for seed in set(feasible_seeds()) & set(range(first, first + 20)):
        instance, found = varied_instance(seed), varied_best(seed)
        assert found is not None
        used = [pick for pick in found.picks if pick is not None]
        bounds, within_us = ClassBounds(instance), varied_slowest_us(seed)
        dims, devices = bounds.relaxed(within_us, "latency"), bounds.relaxed(within_us, "devices")
        assert dims is not None
        assert devices is not None
        assert dims <= sum(embed_dim for _, embed_dim in used)
        assert devices <= len(used)
        if instance.goal.objective == "energy":
            energy = bounds.relaxed(within_us, "energy")
            assert energy is not None
            assert energy <= float(found.value) * 1000 * instance.energy_scale + 1e-6


@pytest.mark.parametrize("first", range(0, len(VARIED), 20))
def test_the_flow_respects_the_number_of_devices(first: int) -> None:
    """With the best plan's number of devices there is a flow; with fewer than the copies there is none."""
    for seed in set(feasible_seeds()) & set(range(first, first + 20)):
        instance, found = varied_instance(seed), varied_best(seed)
        assert found is not None
        used = sum(pick is not None for pick in found.picks)
        bounds = ClassBounds(instance, used)
        assert bounds.relaxed(varied_slowest_us(seed), "latency") is not None
        assert IntervalDP(instance, bounds, used).possible(varied_slowest_us(seed))
        copies = max(rule.min_devices for rule in instance.survival_rules)
        if copies > 1:
            assert ClassBounds(instance, copies - 1).relaxed(bounds.longest_us, "latency") is None


@pytest.mark.parametrize("objective", ["latency", "energy", "devices"])
def test_bounds_of_each_objective(objective: str) -> None:
    """Within the limits of the goal, the bound of the search is never beyond the optimum."""
    compared = 0
    for seed in feasible_seeds():
        of, on, goal = varied(seed)
        changes = {"objective": objective, "max_latency_ms": goal.max_latency_ms or 1000.0}
        limited = Goal.model_validate(goal.model_dump() | changes)
        found = best_of(of, on, limited)
        assert found is not None
        instance = build_instance(of, on, limited)
        bounds, function = ClassBounds(instance), ObjectiveFunction(instance, limited.objective)
        slowest = bounds.slowest_us(Clock(60))
        assert slowest is not None
        bound = search._bound(instance, bounds, function, slowest, NEVER)
        assert bound is not None
        value = float(found.value) * (1000 * instance.energy_scale if objective == "energy" else 1)
        assert bound <= value + 1e-6
        compared += 1
    assert compared >= 80


def test_a_device_that_was_timed_at_other_widths_serves_nothing() -> None:
    """The bound is that of the fleet without it."""
    narrow = profile(widths=profile_data()["widths"][1:])
    alone = fleet(devices=fleet_data()["devices"][:1], links=[])
    bounds = [
        ClassBounds(build_instance(narrow, on, Goal(min_retention=0.1))).slowest_us(Clock(60))
        for on in (fleet(), alone)
    ]
    assert bounds[0] == bounds[1]
    assert bounds[0] is not None
