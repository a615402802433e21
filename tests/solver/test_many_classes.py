"""More than a dozen classes: plans are valid, with every objective and demand."""

from functools import cache

import pytest

from planner.errors import InfeasibleError
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan
from planner.solver import SolveOptions, solve
from tests.helpers.goals import floored
from tests.helpers.many_classes import GOALS, large
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import changed


@cache
def plan_of(name: str, num_classes: int, seconds: float = 0.6) -> Plan:
    """Return a plan of `large` for one of the goals."""
    of, on = large(num_classes)
    # To find survivors takes more.
    limit_s = 3.5 if "survive" in GOALS[name] else seconds
    return solve(
        of,
        on,
        Goal.model_validate(GOALS[name] | {"min_retention": 0.5}),
        SolveOptions(time_limit_s=limit_s, deterministic=True),
    )


@pytest.mark.parametrize(
    ("name", "num_classes"), [(name, n) for name, goal in GOALS.items() for n in (13, 24 if "survive" in goal else 40)]
)
def test_every_demand_is_met_with_many_classes(name: str, num_classes: int) -> None:
    """The plan passes the check, its bound is not beyond it, and every demand is met."""
    of, on = large(num_classes)
    plan = plan_of(name, num_classes)
    goal = plan.goal
    assert check(plan, of, on) == []
    assert plan.bound >= plan.value if goal.objective == "accuracy" else plan.bound <= plan.value
    assert plan.bound_us <= plan.latency_us
    served = {a.device: set(a.classes) for a in plan.assignments}
    assert all(sum(c in classes for classes in served.values()) > goal.survive for c in of.classes)
    for key, placements in (("pin", goal.pin), ("forbid", goal.forbid)):
        for c, names in placements.items():
            for device in (d for name in names for d in on.member_names[name]):
                assert (c in served.get(device, set())) == (key == "pin")
    for classes in served.values():
        assert all(set(group) <= classes or not set(group) & classes for group in goal.together)
        assert all(len(set(group) & classes) <= 1 for group in goal.apart)
    assert not {d for name in goal.leave_out for d in on.member_names[name]} & served.keys()
    assert plan.latency_us <= (goal.max_latency_us or plan.latency_us)
    assert goal.max_energy_mj is None or (plan.energy_mj or 0) <= goal.max_energy_mj


def test_the_objectives_differ() -> None:
    """Each objective's plan is the best of all four by that objective."""
    plans = {name: plan_of(name, 40) for name in ("latency", "energy", "devices", "accuracy")}
    assert plans["latency"].latency_us == min(plan.latency_us for plan in plans.values())
    assert plans["energy"].energy_mj == min(plan.energy_mj or 0 for plan in plans.values())
    assert len(plans["devices"].assignments) == min(len(plan.assignments) for plan in plans.values())
    assert plans["accuracy"].lowest_retention == max(plan.lowest_retention for plan in plans.values())


@pytest.mark.parametrize("seed", range(4))
def test_more_than_twelve_classes(seed: int) -> None:
    """The plan passes the check and states its bound and gap, though subsets cannot be enumerated."""
    drawn = random_profile(seed, num_classes=13 + 3 * seed, num_groups=8, kinds=("a",))
    on = random_fleet(drawn, seed, num_devices=4 + seed, tightness=2.0)
    plan = solve(drawn, on, floored(), SolveOptions(time_limit_s=1, deterministic=True))
    assert check(plan, drawn, on) == []
    assert plan.bound_us <= plan.latency_us
    assert plan.gap == pytest.approx((plan.latency_us - plan.bound_us) / plan.latency_us)


def test_more_than_twelve_classes_that_do_not_fit() -> None:
    """In a hundred bytes no class fits."""
    drawn = random_profile(1, num_classes=14)
    devices = random_fleet(drawn, 1).model_dump(mode="json")["devices"]
    tiny = changed(random_fleet(drawn, 1), devices=[d | {"memory_budget": 1} for d in devices])
    with pytest.raises(InfeasibleError, match=r"\ANo plan: class '\d+' needs at least [\d.]+ KiB on any device"):
        solve(drawn, tiny, floored())


def test_more_boards_do_not_slow_many_classes_down() -> None:
    """With a slow aggregator, 20 boards are no slower than one, though fusing more takes longer."""
    drawn = random_profile(5, num_classes=13, depth=2, num_heads=2, num_groups=4)
    devices = [{"name": "hub", "macs_per_second": 2e5, "memory_budget": "64MiB", "runtime_overhead": 0}]
    link = {"bandwidth_mbps": 100.0, "latency_ms": 0.1}
    latencies = []
    for count in (1, 20):
        boards = {"name": "board", "count": count, "macs_per_second": 2e9, "memory_budget": "64MiB"}
        fields = {"aggregator": "hub", "devices": [*devices, boards | {"runtime_overhead": 0}], "default_link": link}
        options = SolveOptions(time_limit_s=1, deterministic=True)
        latencies.append(solve(drawn, Fleet.model_validate(fields), Goal(min_retention=0.5), options).latency_us)
    assert latencies[1] <= latencies[0]
