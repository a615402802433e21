"""The exact method against brute force and by hand: floors, latency limits and the use of slack."""

import re
from collections import Counter

import pytest

from planner.errors import InfeasibleError
from planner.rules.check import check
from planner.schema import Goal, Plan
from planner.solver import SolveOptions, solve
from tests.helpers.advice import message_of_small
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import CHANGED, SMALL, latency_of, middling, middling_us, small, small_best

# --- brute force


@pytest.mark.parametrize("seed", SMALL)
def test_brute_force_agrees(seed: int) -> None:
    """The latency is the same to the microsecond, with proof, and there is no plan exactly where there is none."""
    drawn, on, goal = small(seed)
    best = small_best(seed)
    if best is None:
        assert re.fullmatch(r"No plan: .*\.", message_of_small(seed))
        return
    plan = solve(drawn, on, goal)
    assert plan.latency_us == best.latency_us
    assert (plan.status, plan.bound_us, plan.gap) == ("optimal", plan.latency_us, 0.0)
    assert check(plan, drawn, on) == []


def test_brute_force_sees_all_sorts_of_fleets() -> None:
    """Instances with and without a plan, with every kind of goal, width and number of devices occur."""
    seen = Counter[object]()
    for seed in SMALL:
        _, on, goal = small(seed)
        best = small_best(seed)
        seen["infeasible" if best is None else "feasible"] += 1
        seen["infeasible" if best is None else "feasible", len(on.devices)] += 1
        seen["by drop" if goal.min_retention is None else "by retention"] += 1
        if best is not None:
            used = [pick for pick in best.picks if pick is not None]
            seen["used", len(used)] += 1
            seen["narrow"] += any(embed_dim == 4 for _, embed_dim in used)
            seen["table"] += any(d.kind and pick for d, pick in zip(on.devices, best.picks, strict=True))
    common = ["infeasible", "feasible", "by drop", "by retention", "narrow", ("used", 1), ("used", 2)]
    assert {what: seen[what] for what in common if seen[what] < 24} == {}
    assert {n: seen["infeasible", n] for n in (1, 2, 3) if seen["infeasible", n] < 8} == {}
    assert seen["table"] >= 10
    assert seen["used", 3] >= 3


def test_a_plan_for_one_device_by_hand() -> None:
    """Both classes at 0.9 on the gateway: no plan without head 0.3 of a and 0.3 of b, group 0.2 of b, ...

    Class a may lose 0.1 and class b 0.1, so one unit of at most 0.1 in both, or two of 0.05 in b and
    at most 0.1 together in a: of those, head 0 of block 1 (a 0.1, b 0.1) saves most: 200 MACs of
    1690. 1490 / 3 = 496.67 us, and 10 x (8 + 2) / 3 = 33.33 us for the fusion. Width 4 retains too little.
    """
    alone = fleet(devices=fleet_data()["devices"][:1], links=[])
    plan = solve(profile(), alone, Goal(min_retention=0.9))
    assert plan.assignments[0].kept_heads == ((0, 1), (1,))
    assert plan.assignments[0].kept_channel_groups == ((0, 1), (0, 1))
    assert (plan.latency_us, plan.bound_us) == (497 + 34, 497 + 34)


# --- goals


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


def test_a_latency_limit_that_can_be_met() -> None:
    """A limit at the optimum changes nothing but the goal."""
    drawn, on = middling(next(seed for seed in CHANGED if middling_us(seed) < float("inf")))
    plan = solve(drawn, on)
    limited = solve(drawn, on, Goal(max_latency_ms=plan.latency_us / 1000))
    assert (limited.latency_us, limited.bound_us) == (plan.latency_us, plan.bound_us)
    assert limited.assignments == plan.assignments


@pytest.mark.parametrize("seed", CHANGED)
def test_a_latency_limit_that_cannot_be_met(seed: int) -> None:
    """A microsecond less than the optimum is refused with the limit, the optimum and a repair."""
    drawn, on = middling(seed)
    if middling_us(seed) == float("inf"):
        with pytest.raises(InfeasibleError, match=r"\ANo plan: "):
            solve(drawn, on, Goal(max_latency_ms=1000))
        return
    limit_ms = (middling_us(seed) - 1) / 1000
    message = rf"\ANo plan within {limit_ms:g} ms: no plan takes less than {middling_us(seed) / 1000:.3f} ms\. Smallest"
    with pytest.raises(InfeasibleError, match=message) as caught:
        solve(drawn, on, Goal(max_latency_ms=limit_ms))
    works = re.search(r"--max-latency-ms ([\d.]*\d)", str(caught.value))
    assert works is not None
    assert solve(drawn, on, Goal(max_latency_ms=float(works[1]))).latency_us == middling_us(seed)
    drop = re.search(r"--max-accuracy-drop ([\d.]*\d)", str(caught.value))
    relaxed = latency_of(drawn, on, Goal(max_accuracy_drop=0.05))
    assert (drop is not None) == (relaxed <= 1000 * limit_ms)
    if drop is not None:
        goal = Goal(max_accuracy_drop=float(drop[1]), max_latency_ms=limit_ms)
        assert solve(drawn, on, goal).latency_us == relaxed


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


def test_a_floor_of_zero_keeps_what_is_free() -> None:
    """Without a floor, the optimum is the lowest time of an empty sub-model of either width.

    Width 4 on the gateway: 500 MACs / 3 = 166.67 us, fusion 10 x (4 + 2) / 3 = 20 us.
    """
    plan = solve(profile(), fleet(), Goal(min_retention=0))
    assert (plan.latency_us, plan.bound_us) == (187, 187)
    assert {name for a in plan.assignments for name in a.classes} == {"a", "b"}


def test_a_latency_limit_is_exact_in_decimals() -> None:
    """1.001 ms are 1001 us, though 1000 * 1.001 is less in binary."""
    assert Goal(max_latency_ms=1.001).max_latency_us == 1001
    assert all(Goal(max_latency_ms=us / 1000).max_latency_us == us for us in range(1, 5000))


# --- progress


def test_progress_is_reported() -> None:
    """Bounds rise, latencies fall, and the last of both are the plan's."""
    drawn = random_profile(2, num_classes=8, num_groups=16)
    told: list[tuple[float | None, float]] = []
    plan = solve(
        drawn,
        random_fleet(drawn, 2, tightness=1.0),
        options=SolveOptions(progress=lambda best, bound: told.append((best, bound))),
    )
    bests = [best for best, _ in told if best is not None]
    bounds = [bound for _, bound in told]
    assert bests == sorted(bests, reverse=True)
    assert bounds == sorted(bounds)
    assert (bests[-1], bounds[-1]) == (plan.latency_us, plan.bound_us)
