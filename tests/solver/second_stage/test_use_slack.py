"""Use of slack: more retention at the same objective."""

import pytest

from planner.schema import Goal, Plan
from planner.solver import solve
from tests.helpers.pencil import fleet, profile
from tests.helpers.random_instances import random_fleet
from tests.helpers.solver_instances import CHANGED, middling


@pytest.mark.parametrize("seed", CHANGED[:6])
def test_leave_idle_leaves_the_latency(seed: int) -> None:
    """The latency is the same without leaving devices idle; then no less is used and retained."""
    drawn = middling(seed)[0]
    on = random_fleet(drawn, seed, num_devices=5, tightness=1.5)
    busy, idle = (solve(drawn, on, Goal(leave_idle=leave)) for leave in (False, True))
    assert busy.latency_us == idle.latency_us
    assert len(busy.idle) <= len(idle.idle)

    def kept(plan: Plan) -> float:
        return sum(share for a in plan.assignments for share in a.retention.values())

    assert kept(busy) >= kept(idle) - 1e-6


def test_leave_idle_leaves_devices_idle() -> None:
    """Of two equal devices one can serve both classes in time; the other is used unless left idle."""
    box = {"macs_per_second": 3e6, "memory_budget": 10_000, "runtime_overhead": 0}
    two = fleet(
        devices=[box | {"name": "gateway"}, box | {"name": "twin", "macs_per_second": 1e12}],
        links=[{"between": ["gateway", "twin"], "bandwidth_mbps": 1e5, "latency_ms": 0}],
    )
    # The fusion takes 10 / 3 us for each embed dim more, so a second device never helps the latency.
    busy, idle = (solve(profile(), two, Goal(leave_idle=leave)) for leave in (False, True))
    assert busy.latency_us == idle.latency_us
    assert idle.idle == ("gateway",)


def test_a_floor_of_zero_keeps_what_is_free() -> None:
    """Without a floor, the optimum is the lowest time of an empty sub-model of either width.

    Width 4 on the gateway: 500 MACs / 3 = 166.67 us, fusion 10 x (4 + 2) / 3 = 20 us.
    """
    plan = solve(profile(), fleet(), Goal(min_retention=0))
    assert (plan.latency_us, plan.bound_us) == (187, 187)
    assert {name for a in plan.assignments for name in a.classes} == {"a", "b"}
