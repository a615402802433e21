"""Plans of placements, whatever made them: the check recomputes every number."""

import numpy as np
import pytest

from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver.baselines import greedy
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.plan import Solution, plan_of
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import by_device, is_plan
from tests.helpers.goals import floored
from tests.helpers.paper_plans import COMPUTE_US, FUSION_US, TRAVEL_US, powered
from tests.helpers.pencil import ACCURACY_MODEL, profile
from tests.helpers.placements import random_placement
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import roomy
from tests.helpers.varied_instances import varied


def test_random_placements_pass_the_check() -> None:
    """The check accepts every stated number of random sub-models that happen to be a plan."""
    found = 0
    for seed in range(60):
        of, on, _ = varied(seed)
        instance, rng = build_instance(of, roomy(on), Goal(min_retention=0.05)), np.random.default_rng(seed)
        for _ in range(6):
            placed = random_placement(instance, rng)
            if is_plan(instance, list(placed.values())):
                plan = plan_of(Solution(instance, placed, 0, NO_WARM_START), seed=7, seconds=1.23456)
                assert check(plan, of, instance.fleet) == []
                assert (plan.bound_us, plan.status, plan.gap) == (0, "feasible", 1.0)
                assert (plan.solver.seed, plan.solver.seconds) == (7, 1.235)
                assert {a.device for a in plan.assignments} == placed.keys()
                found += 1
    assert found > 40


def test_placements_by_a_baseline_pass_the_check() -> None:
    """Devices are listed in the order of the fleet, the others are idle."""
    of = random_profile(2, num_classes=8, num_groups=8)
    on = roomy(random_fleet(of, 2, num_devices=5))
    instance = build_instance(of, on, floored())
    placement = by_device(instance, greedy(instance, 3, Clock(60)), {})
    plan = plan_of(Solution(instance, placement, 5, NO_WARM_START), seed=3, seconds=0.0)
    assert check(plan, of, on) == []
    order = [member.name for member in on.members]
    assert [a.device for a in plan.assignments] == [name for name in order if name in placement]
    assert list(plan.idle) == [name for name in order if name not in placement]


def whole_model_on_near(goal: Goal, bound: float, on: Fleet | None = None, of: Profile | None = None) -> Plan:
    """Return the plan of the whole model at embed dim 8 on `near`, with a bound in the solver's units."""
    on, of = on or powered(), of or profile()
    instance = build_instance(of, on, goal)
    (option,) = [o for o in instance.options if (o.device.name, o.embed_dim) == ("near", 8)]
    placement = {"near": PlacedSubModel(option, (0, 1), tuple(range(len(instance.units))))}
    plan = plan_of(Solution(instance, placement, bound, NO_WARM_START), seed=0, seconds=0.0)
    assert check(plan, of, on) == []
    return plan


LATENCY_US = COMPUTE_US["near"] + sum(TRAVEL_US["near"]) + FUSION_US[1]
# 2.5 W for 29 us; the powers 2, 2.5 and 1 W are whole in halves of a microjoule per microsecond.
ENERGY_MJ, ENERGY = 0.0725, 2 * 72.5


def test_latency_is_certified_by_its_bound() -> None:
    """A bound equal to the latency makes it optimal; a lower one is the gap."""
    plan = whole_model_on_near(floored(), LATENCY_US)
    assert (plan.latency_us, plan.bound_us, plan.status, plan.gap) == (LATENCY_US, LATENCY_US, "optimal", 0.0)
    plan = whole_model_on_near(floored(), LATENCY_US - 100)
    assert plan.status == "feasible"
    assert plan.gap == pytest.approx(100 / LATENCY_US)


def test_energy_is_stated_in_millijoules() -> None:
    """Bounds are rounded down to nanojoules, and equal the energy exactly where that is proven."""
    goal = floored(objective="energy", max_latency_ms=100)
    plan = whole_model_on_near(goal, int(ENERGY))
    assert (plan.objective_value, plan.objective_bound, plan.status) == (ENERGY_MJ, ENERGY_MJ, "optimal")
    plan = whole_model_on_near(goal, int(ENERGY) - 2)
    assert (plan.objective_value, plan.objective_bound, plan.status) == (ENERGY_MJ, 0.0715, "feasible")
    # 2.0625 W is whole in sixteenths: 955 of them are 59.6875 uJ, and 29 us take 59.8125 uJ.
    devices = [d | {"active_power_w": 2.0625} for d in powered().model_dump(mode="json")["devices"]]
    plan = whole_model_on_near(goal, 955, powered(devices=devices))
    assert plan.objective_value == pytest.approx(0.059812, abs=1e-6)
    assert plan.objective_bound == 0.059687


def test_devices_are_stated_as_they_are() -> None:
    """A number of devices is its own unit."""
    plan = whole_model_on_near(floored(objective="devices", max_latency_ms=100), 1)
    assert (plan.objective_value, plan.objective_bound, plan.status) == (1, 1, "optimal")


def test_accuracy_is_stated_as_a_share() -> None:
    """The whole model loses nothing, so its accuracy is predicted; the bound is rounded, and no lower."""
    goal, of = floored(objective="accuracy", max_latency_ms=100), profile(accuracy_model=ACCURACY_MODEL)
    plan = whole_model_on_near(goal, 0.97, of=of)
    assert (plan.objective_value, plan.objective_bound, plan.status) == (0.97, 0.97, "optimal")
    plan = whole_model_on_near(goal, 0.9812341, of=of)
    assert (plan.objective_value, plan.objective_bound, plan.status) == (0.97, 0.981234, "feasible")
    assert plan.gap == pytest.approx((0.981234 - 0.97) / 0.97)
    # Rounded as it may be, a bound is not below what it bounds.
    assert whole_model_on_near(goal, 0.9699999, of=of).objective_bound == 0.97
    # The latency that is stated beside is bounded too, whatever was searched for.
    assert 0 < plan.bound_us <= plan.latency_us
