"""Goals, limits and progress of a solve."""

import re

import pytest

from planner.errors import InfeasibleError
from planner.schema import Goal
from planner.solver import SolveOptions, solve
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import CHANGED, middling, middling_us


def test_a_latency_limit_that_can_be_met() -> None:
    """A limit at the optimum changes nothing but the goal."""
    drawn, on = middling(next(seed for seed in CHANGED if middling_us(seed) < float("inf")))
    plan = solve(drawn, on, floored())
    limited = solve(drawn, on, floored(max_latency_ms=plan.latency_us / 1000))
    assert (limited.latency_us, limited.bound_us) == (plan.latency_us, plan.bound_us)
    assert limited.assignments == plan.assignments


@pytest.mark.parametrize("seed", CHANGED)
def test_a_latency_limit_that_cannot_be_met(seed: int) -> None:
    """A microsecond less than the optimum is refused with the limit, the optimum and a repair."""
    drawn, on = middling(seed)
    if middling_us(seed) == float("inf"):
        with pytest.raises(InfeasibleError, match=r"\ANo plan: "):
            solve(drawn, on, floored(max_latency_ms=1000))
        return
    limit_ms = (middling_us(seed) - 1) / 1000
    message = rf"\ANo plan within {limit_ms:g} ms: no plan takes less than {middling_us(seed) / 1000:.3f} ms\. Smallest"
    with pytest.raises(InfeasibleError, match=message) as caught:
        solve(drawn, on, floored(max_latency_ms=limit_ms))
    works = re.search(r"max_latency_ms=([\d.]*\d)", str(caught.value))
    assert works is not None
    assert solve(drawn, on, floored(max_latency_ms=float(works[1]))).latency_us == middling_us(seed)
    floor = re.search(r"min_retention=([\d.]*\d)", str(caught.value))
    assert floor is not None
    lower = floored(min_retention=float(floor[1]), max_latency_ms=limit_ms)
    assert solve(drawn, on, lower).latency_us <= 1000 * limit_ms


def test_a_floor_of_one_keeps_the_whole_model() -> None:
    """Every unit of the random profile matters to some class, so all are kept."""
    for seed in range(5):
        drawn = random_profile(seed, widths=(8, 4))
        plan = solve(drawn, random_fleet(drawn, seed, tightness=4.0), Goal(min_retention=1.0))
        for a in plan.assignments:
            assert a.embed_dim == 8
            assert a.kept_heads == ((0, 1),) * drawn.depth
            assert a.kept_channel_groups == ((0, 1),) * drawn.depth
            assert set(a.retention.values()) == {1.0}


def test_a_latency_limit_is_exact_in_decimals() -> None:
    """1.001 ms are 1001 us, though 1000 * 1.001 is less in binary."""
    assert floored(max_latency_ms=1.001).max_latency_us == 1001
    assert all(floored(max_latency_ms=us / 1000).max_latency_us == us for us in range(1, 5000))


def test_progress_is_reported() -> None:
    """Bounds rise, latencies fall, and the last of both are the plan's."""
    drawn = random_profile(2, num_classes=8, num_groups=16)
    reports: list[tuple[float | None, float]] = []
    plan = solve(
        drawn,
        random_fleet(drawn, 2, tightness=1.0),
        floored(),
        SolveOptions(progress=lambda best, bound: reports.append((best, bound))),
    )
    bests = [best for best, _ in reports if best is not None]
    bounds = [bound for _, bound in reports]
    assert bests == sorted(bests, reverse=True)
    assert bounds == sorted(bounds)
    assert (bests[-1], bounds[-1]) == (plan.latency_us, plan.bound_us)
