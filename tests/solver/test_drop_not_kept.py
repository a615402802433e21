"""Messages where the most accurate plan within a latency loses more than the drop: what is in the way of more."""

import pytest

from planner.errors import InfeasibleError
from planner.rules.check import check
from planner.schema import Fleet, Goal
from planner.solver import SolveOptions, solve
from tests.helpers.advice import changes, done
from tests.helpers.pencil import ACCURACY_MODEL, fleet, fleet_data, profile
from tests.helpers.random_instances import timed_in_c

PROFILE = timed_in_c(profile(accuracy_model=ACCURACY_MODEL))


def stored(storage_budget: int) -> Fleet:
    """Return the pencil fleet in C with plenty of memory."""
    budgets = {"memory_budget": 10**6, "storage_budget": storage_budget, "storage_overhead": 0}
    return fleet(devices=[device | {"engine": "c"} | budgets for device in fleet_data()["devices"]])


def goal_of(max_latency_ms: float) -> Goal:
    """Return the goal of the highest accuracy within a latency, of which a point may be lost."""
    return Goal(objective="accuracy", max_accuracy_drop=0.01, max_latency_ms=max_latency_ms)


@pytest.mark.parametrize(
    ("storage_budget", "max_latency_ms", "reason", "named"),
    [
        # Any plan takes less than a second: no latency helps.
        (2500, 1000, "class 'b' needs at least 3.3 KiB of storage on any device", {"storage"}),
        # Within 0.9 ms it is flash all the same; with more of it, either helps.
        (3000, 0.9, "class 'b' needs at least 3.3 KiB of storage on any device", {"storage"}),
        (3400, 0.9, "no plan within 0.9 ms: no plan takes less than", {"storage", "max_latency_ms"}),
    ],
)
def test_what_is_in_the_way_is_named(storage_budget: int, max_latency_ms: float, reason: str, named: set[str]) -> None:
    """The budget or the limit that binds; whatever is advised makes a plan that keeps the drop."""
    on, goal = stored(storage_budget), goal_of(max_latency_ms)
    with pytest.raises(InfeasibleError) as caught:
        solve(PROFILE, on, goal)
    message = str(caught.value)
    assert message.startswith(f"No plan within {max_latency_ms:g} ms is predicted to lose at most 1.0 points: ")
    assert f"With floors of 0.83: {reason}" in message
    advised = changes(message)
    assert {"storage" if change.startswith("+") else "max_latency_ms" for change in advised} == named
    for change in advised:
        fleet_then, goal_then = done(on, goal, change)
        plan = solve(PROFILE, fleet_then, goal_then.replace(objective="accuracy"))
        assert check(plan, PROFILE, fleet_then) == []
        assert plan.predicted_accuracy is not None
        assert plan.predicted_accuracy.loss <= 0.01


def test_a_drop_that_the_plan_keeps_is_named() -> None:
    """In tenths of a point, and the plan that was found keeps it; one tenth less it does not."""
    on, goal = stored(2500), goal_of(1000)
    with pytest.raises(InfeasibleError, match=r"so `max_accuracy_drop=0\.015` has a plan") as caught:
        solve(PROFILE, on, goal, SolveOptions(advice=False))
    assert "Smallest change" not in str(caught.value)
    plan = solve(PROFILE, on, goal.replace(max_accuracy_drop=0.015))
    assert plan.predicted_accuracy is not None
    assert 0.014 < plan.predicted_accuracy.loss <= 0.015
