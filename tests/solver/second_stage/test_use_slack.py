"""Use of slack: more predicted accuracy at the same objective, by the formulas of the helpers."""

from collections.abc import Iterator

import pytest

from planner.rules.check import check
from planner.schema import Goal
from planner.solver import solve
from planner.solver.exact.benders import search_exact
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.plan import Solution, plan_of
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import by_device, is_plan
from planner.solver.problem.search import SearchRequest
from planner.solver.second_stage.use_slack import use_slack
from tests.helpers.accuracy import loss_of_placement, predictable
from tests.helpers.goals import floored
from tests.helpers.pencil import ACCURACY_MODEL, fleet, profile
from tests.helpers.random_instances import random_fleet
from tests.helpers.solver_instances import CHANGED, middling
from tests.helpers.varied_instances import feasible_seeds, varied_instance

Placed = tuple[PlacedSubModel, ...]


@pytest.mark.parametrize("seed", CHANGED[:6])
def test_leave_idle_leaves_the_latency(seed: int) -> None:
    """The latency is the same without leaving devices idle; then no less is used and predicted."""
    drawn = predictable(middling(seed)[0], seed)
    on = random_fleet(drawn, seed, num_devices=5, tightness=1.5)
    busy, idle = (solve(drawn, on, floored(leave_idle=leave)) for leave in (False, True))
    assert busy.latency_us == idle.latency_us
    assert len(busy.idle) <= len(idle.idle)
    assert busy.predicted_accuracy is not None
    assert idle.predicted_accuracy is not None
    assert busy.predicted_accuracy.loss <= idle.predicted_accuracy.loss


def test_leave_idle_leaves_devices_idle() -> None:
    """One of two equal devices can serve both classes in time; the other is used unless left idle."""
    box = {"macs_per_second": 3e6, "memory_budget": 10_000, "runtime_overhead": 0}
    two = fleet(
        devices=[box | {"name": "gateway"}, box | {"name": "twin", "macs_per_second": 1e12}],
        links=[{"between": ["gateway", "twin"], "bandwidth_mbps": 1e5, "latency_ms": 0}],
    )
    # The fusion takes 10 / 3 us for each embed dim more, so a second device never helps the latency.
    busy, idle = (solve(profile(), two, floored(leave_idle=leave)) for leave in (False, True))
    assert busy.latency_us == idle.latency_us
    assert idle.idle == ("gateway",)


@pytest.mark.parametrize("leave_idle", [False, True])
def test_an_idle_device_that_is_free_is_used(leave_idle: bool) -> None:
    """Both classes are pinned to a slow board; the gateway, which is done in a microsecond, serves class a as well."""
    box = {"memory_budget": 10_000, "runtime_overhead": 1000}
    gateway = box | {"name": "gateway", "macs_per_second": 3e9, "memory_budget": 1330}
    pair = fleet(
        devices=[gateway, box | {"name": "board", "macs_per_second": 3e6}],
        links=[{"between": ["gateway", "board"], "bandwidth_mbps": 1000, "latency_ms": 0}],
    )
    of = profile(accuracy_model=ACCURACY_MODEL)
    goal = floored(min_retention=0.6, pin={"a": ["board"], "b": ["board"]}, leave_idle=leave_idle)
    plan = solve(of, pair, goal)
    assert plan.status == "optimal"
    assert plan.idle == (("gateway",) if leave_idle else ())
    assert plan.predicted_accuracy is not None
    alone = solve(of, pair, goal.model_copy(update={"leave_idle": True})).predicted_accuracy
    assert alone is not None
    assert (plan.predicted_accuracy.loss < alone.loss) == (not leave_idle)


def test_a_floor_of_zero_keeps_what_is_free() -> None:
    """Without a floor, the optimum is the lowest time of an anchor head alone, of either width.

    Width 4 on the gateway: (500 + 100) MACs / 3 = 200 us, fusion 10 x (4 + 2) / 3 = 20 us.
    """
    plan = solve(profile(), fleet(), Goal(min_retention=0))
    assert (plan.latency_us, plan.bound_us) == (220, 220)
    assert {name for a in plan.assignments for name in a.classes} == {"a", "b"}


# --- nothing is lost


def best_placement(instance: Instance) -> Placed | None:
    """Return the plan of an exact search for the instance's objective."""
    name = instance.goal.objective
    objective = ObjectiveFunction(instance, "latency" if name == "accuracy" else name)
    return search_exact(SubsetCosts(instance, NO_WARM_START), SearchRequest(objective), Clock(60)).placed


def placements(count: int) -> Iterator[tuple[Instance, Placed]]:
    """Yield instances of `varied` with the best placement, where there is one."""
    for seed in feasible_seeds()[:count]:
        instance = varied_instance(seed)
        placed = best_placement(instance)
        if placed is not None:
            yield instance, placed


def has_free_energy(instance: Instance) -> bool:
    """Return whether energy is neither limited nor minimised."""
    return instance.goal.objective != "energy" and instance.goal.max_energy_mj is None


def longest_us(instance: Instance, placed: Placed, stretch: float) -> float:
    """Return the latency that the result may have [us]."""
    limit_us = (1 + stretch) * instance.fleet_latency_us(placed)
    return max(limit_us, instance.goal.max_latency_us or 0) if instance.goal.objective == "accuracy" else limit_us


@pytest.mark.parametrize("stretch", [0.0, 0.2])
def test_the_objective_stays_and_the_loss_falls(stretch: float) -> None:
    """The result is a plan that keeps all demands, no slower than allowed, on no more devices where they count.

    Its predicted loss is never higher, often much lower. Where energy counts, nothing changes.
    """
    compared = improved = 0
    for instance, placed in placements(70):
        filled = use_slack(instance, placed, Clock(60), stretch=stretch)
        goal = instance.goal
        if not has_free_energy(instance):
            assert filled == placed
            continue
        compared += 1
        assert is_plan(instance, filled)
        assert instance.fleet_latency_us(filled) <= longest_us(instance, placed, stretch)
        plan = plan_of(Solution(instance, by_device(instance, filled, {}), 0, NO_WARM_START), 0, 0.0)
        problems = [p for p in check(plan, instance.profile, instance.fleet) if "latency must be at most" not in p]
        assert problems == []
        if goal.objective == "devices" or goal.leave_idle:
            assert len(filled) == len(placed)
        before, after = loss_of_placement(instance, placed), loss_of_placement(instance, filled)
        # Of equal losses, that without any one device decides: it counts for a hundred-thousandth.
        assert after <= before + 1e-5
        improved += after < 0.9 * before
        assert plan.predicted_accuracy is not None
        assert plan.predicted_accuracy.loss == pytest.approx(after, abs=2e-6)
    assert compared >= 25
    assert improved >= 8


def test_the_same_placement_gives_the_same_result() -> None:
    """Two runs agree."""
    for instance, placed in placements(25):
        assert use_slack(instance, placed, Clock(60)) == use_slack(instance, placed, Clock(60))


def test_sub_models_that_stay_are_left_alone() -> None:
    """Neither their classes nor their units change."""
    compared = 0
    for instance, placed in placements(30):
        compared += 1
        assert use_slack(instance, placed, Clock(60), stays=placed[:1])[0] == placed[0]
        assert use_slack(instance, placed, Clock(60), stays=placed)[: len(placed)] == placed
    assert compared >= 15


def test_out_of_time_the_placement_is_returned() -> None:
    """Without any time nothing changes."""
    instance, placed = next(placements(5))
    assert use_slack(instance, placed, Clock(0)) == placed


def test_an_idle_device_helps_with_what_it_may_serve() -> None:
    """With a class forbidden, one apart from another, or two together, an idle device serves the others."""
    of = predictable(middling(CHANGED[0])[0], 1)
    on = random_fleet(of, 4, num_devices=4, tightness=0.5)
    names = [member.name for member in on.members]
    demands = ({"forbid": {"0": tuple(names[1:])}}, {"apart": (("0", "1"),)}, {"together": (("0", "1"), ("1", "2"))})
    for demand in ({}, *demands):
        goal = floored(min_retention=0.3, max_latency_ms=1000.0, objective="accuracy", **demand)
        instance = build_instance(of, on, goal)
        placed = best_placement(instance)
        assert placed is not None
        filled = use_slack(instance, placed, Clock(60))
        assert is_plan(instance, filled)
        assert len(filled) == len(names), demand
