"""The large method keeps its time limit: with a clock that jumps, and with units that cost nothing."""

import itertools
import time

import pytest

from planner.rules.check import check
from planner.schema import Fleet, Profile
from planner.solver import SolveOptions, solve
from planner.solver.large.search import search_large
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.search import SearchRequest
from tests.helpers.goals import floored
from tests.helpers.many_classes import GOALS, large
from tests.helpers.random_instances import random_profile


@pytest.mark.parametrize("name", ["latency", "energy", "devices", "survive"])
@pytest.mark.parametrize("jump_s", [0.1, 1.0, 30.0])
def test_no_loop_goes_on_without_the_clock(name: str, jump_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that jumps whenever it is read, it is read few times after the end; a bound is there by then."""
    instance = build_instance(*large(24), floored(**GOALS[name]))
    limit_s, readings = 10.0, itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: jump_s * next(readings))
    objective = ObjectiveFunction(instance, instance.goal.objective)
    found = search_large(instance, SearchRequest(objective), Clock(limit_s))
    assert found.bound is not None
    # Some tens of devices and of attempts each notice for themselves.
    assert next(readings) <= limit_s / jump_s + 500


def test_a_bound_of_zero() -> None:
    """Where a device computes in no time, the bound is 0 us: targets above it are found all the same."""
    of = random_profile(3, num_classes=13)
    hub = {"name": "hub", "macs_per_second": 1e17, "memory_budget": "1MiB", "runtime_overhead": 0}
    devices = [hub, hub | {"name": "board", "macs_per_second": 1e6}]
    link = {"bandwidth_mbps": 100.0, "latency_ms": 0.1}
    on = Fleet.model_validate({"aggregator": "hub", "devices": devices, "default_link": link})
    for objective in ("latency", "energy", "devices"):
        goal = floored(objective=objective, **({} if objective == "latency" else {"max_latency_ms": 5.0}))
        powered = Fleet.model_validate(
            on.model_dump(mode="json") | {"devices": [d | {"active_power_w": 1.0} for d in devices]}
        )
        plan = solve(of, powered, goal, SolveOptions(time_limit_s=1, deterministic=True))
        assert check(plan, of, powered) == []
        # A microsecond for the sub-model, one for the fusion.
        assert objective != "latency" or plan.latency_us <= 2


def test_one_device() -> None:
    """A single device has no one to exchange classes with."""
    of: Profile = random_profile(4, num_classes=15)
    hub = {"name": "hub", "macs_per_second": 1e6, "memory_budget": "1MiB", "runtime_overhead": 0}
    on = Fleet.model_validate({"aggregator": "hub", "devices": [hub]})
    plan = solve(of, on, floored(), SolveOptions(time_limit_s=1, deterministic=True))
    assert check(plan, of, on) == []
    assert [len(a.classes) for a in plan.assignments] == [15]
    # The relaxation of its only sub-model is what can be proven.
    assert plan.gap <= 0.1
