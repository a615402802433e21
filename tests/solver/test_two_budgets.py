"""Memory and storage together: plans, bounds and messages where either binds."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InfeasibleError
from planner.schema import Fleet, Profile
from planner.solver import SolveOptions, solve
from planner.solver.large.search import latency_bound_us, search_large
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.search import SearchRequest
from tests.helpers.advice import message_of, verify
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_profile, timed_in_c, with_storage
from tests.helpers.solver_instances import best_of, sharpened

PLENTY = 10**6
TIMED = timed_in_c(profile())


def stored(memory_budget: int, storage_budget: int) -> Fleet:
    """Return the pencil fleet in C, each device with these budgets."""
    budgets = {"memory_budget": memory_budget, "storage_budget": storage_budget, "storage_overhead": 0}
    return fleet(devices=[device | {"engine": "c"} | budgets for device in fleet_data()["devices"]])


# --- by hand: 1,756 bytes of memory hold any sub-model of width 8, and 3,844 of storage that for both classes


def test_one_device_is_enough_where_both_budgets_are() -> None:
    """Everything is on the gateway, as full as it must be."""
    (a,) = solve(TIMED, stored(1756, 3844), floored(min_retention=0.9)).assignments
    assert (a.device, a.embed_dim, a.memory_bytes, a.storage_bytes) == ("gateway", 8, 1756, 3844)


def test_a_byte_less_of_storage_takes_two_devices() -> None:
    """Then each holds one class, whatever memory there is."""
    plan = solve(TIMED, stored(PLENTY, 3843), floored(min_retention=0.9))
    assert [(a.device, a.classes) for a in plan.assignments] == [("gateway", ("a",)), ("near", ("b",))]
    assert all(a.storage_bytes is not None and a.storage_bytes <= 3843 for a in plan.assignments)


def test_a_byte_less_of_memory_leaves_the_narrow_width() -> None:
    """The arena of width 8 does not fit any more, that of width 4 does: half of class b is lost with it."""
    (a,) = solve(TIMED, stored(1755, PLENTY), floored(min_retention=0.44)).assignments
    assert (a.embed_dim, a.memory_bytes) == (4, 1596)
    with pytest.raises(InfeasibleError):
        solve(TIMED, stored(1755, PLENTY), floored(min_retention=0.6))


@pytest.mark.parametrize(
    ("memory_budget", "storage_budget", "binding"),
    [(1755, PLENTY, "1.8 KiB of memory"), (PLENTY, 2500, "2.5 KiB of storage"), (1755, 2500, "2.5 KiB of storage")],
)
def test_the_budget_that_binds_is_named(memory_budget: int, storage_budget: int, binding: str) -> None:
    """With the bytes that are missing of it; where both are short, the one that more is missing of."""
    on, goal = stored(memory_budget, storage_budget), floored(min_retention=0.6)
    message = message_of(TIMED, on, goal)
    assert message.startswith(f"No plan: class 'b' needs at least {binding} on any device; the largest budget is ")
    # More of one budget alone is no help where both are short.
    named = {"memory", "storage"} & set(verify(TIMED, on, goal, message))
    assert named == ({binding.split()[-1]} if PLENTY in (memory_budget, storage_budget) else set())


def test_a_fleet_in_which_every_class_fits_somewhere() -> None:
    """Each class takes at most 3,280 bytes of the gateway's storage, both take 3,844."""
    alone = stored(PLENTY, 3500).replace(devices=stored(PLENTY, 3500).devices[:1], links=[])
    message = message_of(TIMED, alone, floored(min_retention=0.9))
    assert message.startswith("No plan: each class fits on some device, but the 1 devices together cannot hold all 2")
    assert "storage" in verify(TIMED, alone, floored(min_retention=0.9), message)


# --- brute force


@st.composite
def instances(draw: st.DrawFn) -> tuple[Profile, Fleet]:
    """Draw 3 classes on 2 devices with 8 units, most of them with a storage budget; budgets from far to near."""
    seed = draw(st.integers(0, 10**6))
    drawn = sharpened(random_profile(seed, num_classes=3, kinds=("a",), penalties=True))
    of, on = with_storage(drawn, random_fleet(drawn, seed, num_devices=2, tightness=1.0, choices=True), seed)
    devices = on.model_dump(mode="json")["devices"]
    for device in devices:
        for key in ("memory_budget", "storage_budget"):
            if device.get(key) is not None:
                device[key] = round(device[key] * draw(st.sampled_from([0.7, 1.0, 1.5, 4.0])))
    return of, on.replace(devices=devices)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(instances(), st.sampled_from([0.3, 0.5, 0.7]))
def test_plans_and_bounds_against_brute_force(drawn: tuple[Profile, Fleet], floor: float) -> None:
    """The exact plan is as fast as the best of all; no bound of the large method is above it, and its plan is one."""
    of, on = drawn
    goal = floored(min_retention=floor)
    best, instance = best_of(of, on, goal), build_instance(of, on, goal)
    found = search_large(instance, SearchRequest(ObjectiveFunction(instance)), Clock(5))
    bound_us = latency_bound_us(instance)
    if best is None:
        assert found.placed is None
        with pytest.raises(InfeasibleError):
            solve(of, on, goal)
        return
    assert solve(of, on, goal).latency_us == best.latency_us
    assert bound_us is not None
    assert found.bound is not None
    assert max(bound_us, found.bound) <= best.latency_us
    if found.placed is not None:
        assert all(instance.can_serve(p.option, p.classes, p.kept) for p in found.placed)
        assert instance.fleet_latency_us(found.placed) >= best.latency_us


# --- all classes together


def budgeted(on: Fleet, *budgets: tuple[int, int]) -> Fleet:
    """Return a fleet of devices like the first, each with these budgets of memory and storage."""
    first = on.model_dump(mode="json")["devices"][0]
    names = ("memory_budget", "storage_budget")
    devices = [first | {"name": f"d{i}"} | dict(zip(names, granted, strict=True)) for i, granted in enumerate(budgets)]
    return on.replace(devices=devices)


@pytest.mark.parametrize("seed", [5, 10, 12, 14, 17])
def test_the_budgets_that_are_too_small_for_all_classes_together_are_named(seed: int) -> None:
    """By brute force: a budget is to blame if there is a plan with plenty of it. Storage, then either of the two.

    One device lacks a byte of storage; a second one lacks a byte of memory for what the first could hold.
    """
    drawn = sharpened(random_profile(seed, num_classes=3, kinds=("a",)))
    of, on = with_storage(drawn, random_fleet(drawn, seed, num_devices=1, tightness=1.0), seed)
    goal = floored(min_retention=0.5)

    def least(fleet_of: Callable[[int], Fleet]) -> int:
        low, high = 1, PLENTY
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if best_of(of, fleet_of(middle), goal) is None else (low, middle)
        return high

    memory = least(lambda budget: budgeted(on, (budget, PLENTY)))
    storage = least(lambda budget: budgeted(on, (PLENTY, budget)))
    for granted in ([(PLENTY, storage - 1)], [(PLENTY, storage - 1), (memory - 1, PLENTY)]):
        plenty = {
            "memory": budgeted(on, *((PLENTY, stored) for _, stored in granted)),
            "storage": budgeted(on, *((ram, PLENTY) for ram, _ in granted)),
        }
        blamed = [name for name, fleet_of in plenty.items() if best_of(of, fleet_of, goal) is not None]
        named = f"their {' or their '.join(blamed)} is too small."
        with pytest.raises(InfeasibleError, match=f"together cannot hold all 3 of them: {named}$"):
            solve(of, budgeted(on, *granted), goal, SolveOptions(advice=False))
    assert blamed == ["memory", "storage"]


# --- the method


def test_a_plan_says_which_method_found_it() -> None:
    """Subsets of two classes are listed; twenty are too many; a baseline is named as the goal names it."""
    few = solve(profile(), fleet(), floored())
    many = random_profile(3, num_classes=20)
    assert few.solver.method == "exact"
    on = random_fleet(many, 3, tightness=3)
    assert solve(many, on, floored(min_retention=0.3)).solver.method == "large"
    assert solve(many, on, floored(min_retention=0.3, method="greedy")).solver.method == "greedy"
