"""The baselines: their plans are valid and never better than the bound; seeds and refusals."""

import pytest

from planner.errors import InfeasibleError
from planner.rules.check import check
from planner.solver import SolveOptions, solve
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, roomy

METHODS = ("random-equal", "greedy", "memory-proportional")


@pytest.mark.parametrize(
    ("num_classes", "num_devices", "tightness", "sizes"),
    [
        (3, 2, 2.0, {}),
        (4, 3, 2.0, {"widths": (8, 4), "kinds": ("a",)}),
        (6, 3, 2.0, {"num_groups": 8}),
        (8, 4, 0.6, {"num_groups": 16, "kinds": ("a", "b")}),
        (10, 6, 0.6, DIGITS),
        (10, 6, 0.2, DIGITS | {"widths": (8, 4), "kinds": ("a", "b")}),
    ],
)
def test_bound_below_plan_below_baselines(num_classes: int, num_devices: int, tightness: float, sizes: Json) -> None:
    """Bound <= plan <= each baseline's plan, whose own bound is not above the plan; all pass the check."""
    compared = 0
    for instance_seed in (1, 2):
        drawn = random_profile(instance_seed, num_classes=num_classes, **sizes)
        on = random_fleet(drawn, instance_seed, num_devices=num_devices, tightness=tightness)
        on = roomy(on) if tightness > 1 else on
        plan = solve(drawn, on, floored())
        assert plan.bound_us <= plan.latency_us
        for method in METHODS:
            for seed in range(4):
                try:
                    other = solve(drawn, on, floored(method=method), SolveOptions(seed=seed))
                except InfeasibleError as error:
                    assert str(error).startswith(f"No plan by {method}: ")  # noqa: PT017
                    continue
                compared += 1
                assert check(other, drawn, on) == []
                assert other.bound_us <= plan.latency_us
                assert plan.bound_us <= other.latency_us
                assert plan.latency_us <= other.latency_us or plan.status != "optimal"
                assert (other.goal.method, other.solver.seed) == (method, seed)
    assert compared >= 4


def test_baselines_draw_by_seed() -> None:
    """The same seed gives the same plan; some other seed gives another."""
    drawn = random_profile(1, num_classes=6)
    on = roomy(random_fleet(drawn, 1))
    for method in METHODS:
        plans = [
            solve(drawn, on, floored(method=method), SolveOptions(seed=seed)).assignments for seed in (0, 0, 1, 2, 3)
        ]
        assert plans[0] == plans[1]
        assert any(plan != plans[0] for plan in plans[2:])


def test_the_baselines_respect_the_latency_limit() -> None:
    """A baseline's plan is within the limit, or there is none."""
    drawn = random_profile(1, num_classes=4)
    on = roomy(random_fleet(drawn, 1))
    for method in METHODS:
        free = solve(drawn, on, floored(method=method))
        limit_ms = (free.latency_us - 1) / 1000
        assert solve(drawn, on, floored(method=method, max_latency_ms=limit_ms)).latency_us <= 1000 * limit_ms
        with pytest.raises(InfeasibleError, match=f"No plan by {method}"):
            solve(drawn, on, floored(method=method, max_latency_ms=0.001))
