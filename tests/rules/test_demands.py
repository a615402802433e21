"""Every demand and objective on random instances, against brute force."""

from collections import Counter
from fractions import Fraction
from functools import lru_cache

import pytest

from planner.errors import InfeasibleError, PlannerError
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import solve
from tests.helpers import brute_costs
from tests.helpers.brute_force import Best
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import best_of

# Keys that are no demands.
FREE = {"max_accuracy_drop", "accuracy_confidence", "min_retention", "leave_idle"}
SEEDS = range(520)
CHUNK = 10


def disagreement(of: Profile, on: Fleet, goal: Goal) -> str | None:
    """Return the difference between the solver's result and brute force; None if there is none."""
    best = best_of(of, on, goal)
    try:
        plan = solve(of, on, goal)
    except InfeasibleError as error:
        if best is not None:
            return f"there is a plan, of {float(best.value)}, but: {error}"
        return None if str(error).startswith("No plan") else f"no plan, but the message is {error}"
    except PlannerError as error:
        return f"{type(error).__name__}: {error}"
    if best is None:
        return f"there is no plan, but the solver has one, of {plan.value}"
    return not_best(plan, best) or not_true(plan, of, on, goal)


def not_best(plan: Plan, best: Best) -> str | None:
    """Return the difference between the plan's objective, or its proof, and the optimum."""
    value = round(float(best.value), 6)
    if plan.value != value:
        return f"the best value is {value}, got {plan.value}"
    if plan.goal.objective == "devices" and plan.latency_us != best.latency_us:
        return f"{value} devices can have a latency of {best.latency_us} us, got {plan.latency_us}"
    if plan.status != "optimal" or plan.bound != plan.value or plan.gap:
        return f"must be proven, got {plan.status}, value {plan.value}, bound {plan.bound}, gap {plan.gap}"
    return None


def not_true(plan: Plan, of: Profile, on: Fleet, goal: Goal) -> str | None:
    """Return the violations of the check, or a latency bound above an achievable latency."""
    fastest = best_of(of, on, Goal.model_validate(goal.model_dump() | {"objective": "latency"}))
    assert fastest is not None
    if plan.bound_us > fastest.latency_us:
        return f"bound_us must be at most {fastest.latency_us}, the least latency of any plan, got {plan.bound_us}"
    return "; ".join(check(plan, of, on)) or None


# --- by hand: the floor is 0, so every sub-model is empty unless said otherwise


# --- on random instances, against brute force


@lru_cache
def drawn(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 2 to 4 classes on 1 to 4 devices, with 8 units, and a goal."""
    of = random_profile(
        seed,
        num_classes=2 + seed % 3,
        widths=(8, 4) if seed % 4 == 0 else (8,),
        kinds=("a",) if seed % 5 < 2 else (),
        penalties=seed % 2 == 0,
    )
    if seed % 9 < 6:
        # Sharing is worth while: little is fixed, and the fusion is quick.
        data = of.model_dump(mode="json")
        widths = [width | {"fixed_macs": 0} for width in data["widths"]]
        of = Profile.model_validate(data | {"widths": widths, "fusion_hidden": 1})
    on = random_fleet(
        of,
        seed,
        num_devices=(1, 2, 3, 4, 4, 3, 2, 3, 4, 3, 4)[seed % 11],
        tightness=(0.4, 0.8, 1.5)[seed % 13 % 3],
        meshed=seed % 4 > 0,
        choices=seed % 5 < 4,
    )
    return of, on, random_goal(of, on, seed)


@pytest.mark.parametrize("first", SEEDS[::CHUNK])
def test_brute_force_agrees(first: int) -> None:
    """The solver finds the optimum and proves it, or finds that no plan exists, exactly as brute force does."""
    disagreements = {seed: disagreement(*drawn(seed)) for seed in range(first, first + CHUNK)}
    assert {seed: found for seed, found in disagreements.items() if found is not None} == {}


def demanded(goal: Goal) -> list[str]:
    """Return the keys of a goal's demands, floors aside."""
    return [key for key in goal.model_dump(exclude_defaults=True) if key not in FREE | {"objective"}]


def traits(of: Profile, on: Fleet, goal: Goal) -> list[object]:
    """Return the notable properties of an instance."""
    fleet_json = on.model_dump(mode="json")
    routes = [brute_costs.route(fleet_json, name, of.input_bytes) for name in brute_costs.members(fleet_json)]
    media = Counter(medium for route in routes for medium in route.media)
    found = {
        "choice": any(len(device.precisions) > 1 for device in on.devices),
        "relay": any(route.relays for route in routes),
        "relay and survive": goal.survive and any(route.relays for route in routes),
        "medium of several": any(number > 1 for number in media.values()),
        "equal devices": any(device.count > 1 for device in on.devices),
        "two widths": len(of.widths) > 1,
        "several demands": len(demanded(goal)) > 2,
        f"survive {goal.survive}": True,
        goal.objective: True,
    }
    return [*demanded(goal), *(name for name, holds in found.items() if holds)]


def test_random_goals_are_of_all_sorts() -> None:
    """Every demand and objective occurs many times, with a plan and without; a good half has a plan."""
    seen = Counter[object]()
    for seed in SEEDS:
        best = best_of(*drawn(seed))
        seen.update((trait, best is not None) for trait in ["any", *traits(*drawn(seed))])
        if best is not None:
            seen["used", sum(pick is not None for pick in best.picks)] += 1
            # A limit that the best plan meets to the microsecond.
            limit_us = drawn(seed)[2].max_latency_us
            seen["exactly"] += best.latency_us == limit_us
    assert 200 <= seen["any", True] <= 350
    keys = Goal.model_fields.keys() - FREE
    names = (keys - {"objective", "method"}) | {"latency", "energy", "devices"}
    names |= {"choice", "relay", "medium of several", "equal devices", "two widths", "several demands"}
    assert {(name, v): seen[name, v] for name in names for v in (True, False) if seen[name, v] < 24} == {}
    rare = ["relay and survive", "survive 2"]
    assert {(name, v): seen[name, v] for name in rare for v in (True, False) if seen[name, v] < 10} == {}
    assert {n: seen["used", n] for n in (1, 2, 3, 4) if seen["used", n] < (24 if n < 4 else 5)} == {}
    assert seen["exactly"] >= 10


def test_energies_are_whole_parts_of_a_millijoule() -> None:
    """Energies of brute force are exact, so that a limit at exactly that energy can be drawn."""
    exact = [best_of(*drawn(seed)) for seed in SEEDS[:60] if drawn(seed)[2].objective == "energy"]
    values = [best.value for best in exact if best is not None]
    assert values
    assert all(isinstance(value, Fraction) and Fraction(repr(float(value))) == value for value in values)
