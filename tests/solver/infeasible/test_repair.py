"""The smallest repairs where no plan exists: every one is made, and brute force says whether it works."""

import re
from functools import lru_cache

import pytest

from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal, Profile
from planner.solver import solve
from planner.solver.infeasible.changed_fleet import with_larger_budget
from tests.helpers.advice import changes, message_of, message_of_small, num_bytes_of, verify
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import best_of, infeasible, small


@lru_cache
def drawn(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 2 to 4 classes on 1 to 3 devices, and a goal with several demands."""
    of = random_profile(
        3000 + seed, num_classes=2 + seed % 3, widths=(8, 4) if seed % 4 == 0 else (8,), penalties=seed % 2 == 0
    )
    on = random_fleet(
        of,
        3000 + seed,
        num_devices=1 + seed % 3,
        tightness=(0.4, 0.7, 1.5)[seed % 3],
        meshed=seed % 2 > 0,
        choices=True,
    )
    return of, on, random_goal(of, on, 3000 + seed)


def test_the_advice_on_random_goals_is_true() -> None:
    """Blamed demands and repairs, or their absence, are right for a hundred random infeasible goals."""
    seen: dict[str, int] = {}
    count = 0
    for seed in range(260):
        of, on, goal = drawn(seed)
        if best_of(of, on, goal) is None:
            count += 1
            for category in verify(of, on, goal):
                seen[category] = seen.get(category, 0) + 1
    assert count >= 80
    categories = ["device", "survive", "max_latency_ms", "max_energy_mj"]
    categories += ["min_retention", "pin", "forbid", "together", "apart", "leave_out"]
    assert {category: seen.get(category, 0) for category in categories if seen.get(category, 0) < 2} == {}


def min_addition(of: Profile, on: Fleet, goal: Goal, name: str, max_bytes: int) -> int:
    """Return, by bisection with brute force, the additional bytes on a device that make the fleet feasible."""
    low, high = 0, max_bytes
    assert best_of(of, with_larger_budget(on, name, "memory", high), goal) is not None
    while high - low > 1:
        middle = (low + high) // 2
        feasible = best_of(of, with_larger_budget(on, name, "memory", middle), goal) is not None
        low, high = (low, middle) if feasible else (middle, high)
    return high


@pytest.mark.parametrize("seed", infeasible()[:40])
def test_the_smallest_addition_is_the_smallest(seed: int) -> None:
    """By brute force, no device needs less additional memory than stated, to half a percent."""
    of, on, goal = small(seed)
    message = message_of_small(seed)
    memory = re.search(r"\+([\d.]*\d) (KiB|MiB) on (\w+)", message)
    assert memory is not None
    named_bytes = num_bytes_of(memory[1], memory[2])
    additions = {device.name: min_addition(of, on, goal, device.name, max_bytes=2**20) for device in on.devices}
    assert additions[memory[3]] <= named_bytes
    # Written in tenths of a KiB, rounded up.
    assert named_bytes <= 1.005 * min(additions.values()) + 103 + 1
    verify(of, on, goal, message)


def test_a_device_too_small_for_an_anchor_head_gets_its_addition() -> None:
    """With a floor of 0 an anchor head alone takes 1138 bytes; the stated addition is enough for it."""
    on = fleet(devices=[fleet_data()["devices"][0] | {"memory_budget": 1001}], links=[])
    goal = Goal(min_retention=0)
    assert changes(message_of(profile(), on, goal)) == ["+0.2 KiB on gateway"]
    # (25 + 6) params x 4 + 10 + 4 + 1000 bytes at width 4.
    assert solve(profile(), with_larger_budget(on, "gateway", "memory", 137), goal).status == "optimal"
    with pytest.raises(InfeasibleError):
        solve(profile(), with_larger_budget(on, "gateway", "memory", 136), goal)


@pytest.mark.parametrize("seed", infeasible()[:40])
def test_floors_that_would_do_are_named(seed: int) -> None:
    """The highest retention that works is named, to a thousandth."""
    of, on, goal = small(seed)
    message = message_of_small(seed)
    share = re.search(r"min_retention=([\d.]*\d)", message)
    lowered = float(share[1]) if share else 0.0
    assert share is None or best_of(of, on, Goal(min_retention=lowered)) is not None
    # A thousandth more is too much, or half a percent of what was given up.
    more = lowered + max(0.001, 0.005 * ((goal.min_retention or 0.0) - lowered))
    assert best_of(of, on, Goal(min_retention=more)) is None
