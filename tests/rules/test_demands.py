"""Every demand and objective: by hand at its smallest, and on random instances against brute force."""

from collections import Counter
from fractions import Fraction
from functools import lru_cache
from typing import Any

import pytest

from planner.errors import InfeasibleError, InputError, PlannerError
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import solve
from tests.helpers import brute_costs, brute_force
from tests.helpers.brute_force import Best
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_goal, random_profile

Json = dict[str, Any]

SEEDS = range(500)
CHUNK = 10


def best_of(of: Profile, on: Fleet, goal: Goal) -> Best | None:
    """Return what brute force finds."""
    return brute_force.best(*(data.model_dump(mode="json") for data in (of, on, goal)))


def disagreement(of: Profile, on: Fleet, goal: Goal) -> str | None:
    """Return where the solver's plan, or its word that there is none, differs from brute force."""
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
    """Return how the plan's objective, or its proof, differs from the best there is."""
    value = round(float(best.value), 6)
    # Retentions are measured in parts per million.
    if abs(plan.value - value) > (1.1e-6 if plan.goal.objective == "accuracy" else 0):
        return f"the best value is {value}, got {plan.value}"
    if plan.goal.objective == "devices" and plan.latency_us != best.latency_us:
        return f"{value} devices can have a latency of {best.latency_us} us, got {plan.latency_us}"
    if plan.status != "optimal" or plan.bound != plan.value or plan.gap:
        return f"must be proven, got {plan.status}, value {plan.value}, bound {plan.bound}, gap {plan.gap}"
    return None


def not_true(plan: Plan, of: Profile, on: Fleet, goal: Goal) -> str | None:
    """Return what the check says, or that the bound of the latency is above a latency that can be had."""
    least = best_of(of, on, Goal.model_validate(goal.model_dump() | {"objective": "latency"}))
    assert least is not None
    if plan.bound_us > least.latency_us:
        return f"bound_us must be at most {least.latency_us}, the least latency of any plan, got {plan.bound_us}"
    return "; ".join(check(plan, of, on)) or None


# --- by hand: the floor is 0, so every sub-model is empty unless said otherwise


FREE: Json = {"min_retention": 0.0, "leave_idle": True}


def alone(**changes: Any) -> Fleet:
    """Return the gateway by itself.

    At width 4, an empty sub-model takes 500 / 3 = 166.67 us there, and the fusion 10 x (4 + 2) / 3 = 20.
    """
    return fleet(devices=[fleet_data()["devices"][0] | changes], links=[])


def pair(**changes: Any) -> Fleet:
    """Return the gateway and `near`, whose keys are replaced.

    At width 8, the only one of its table, an empty sub-model on `near` takes 1100 + 10.5 + 1032 us,
    rounded up 2143; and 10 x (8 + 2) / 3 = 33.33 for the fusion, or 10 x (4 + 8 + 2) / 3 = 46.67 with
    the gateway's.
    """
    gateway, near, _ = fleet_data()["devices"]
    return fleet(devices=[gateway, near | changes], links=fleet_data()["links"][:1])


def powered() -> Fleet:
    """Return the pair with known powers: 1 W x 167 us on the gateway, 2.5 W x 11 us on `near`, in mJ 0.167 and 0.0275.

    At width 8 the gateway takes 1000 / 3 = 333.33 us, which is more of both.
    """
    gateway, near, _ = fleet_data()["devices"]
    return fleet(devices=[gateway | {"active_power_w": 1.0}, near], links=fleet_data()["links"][:1])


def frugal() -> Fleet:
    """Return the pair at 1 W each.

    At 0.8, class b takes all groups and head 1 of block 1, 1290 MACs, on the gateway 430 us; with class a
    also head 0 of block 0, 1390 MACs, 464 us. Class a alone takes all groups and both heads of block 0,
    on `near` 10.5 + (2 + 2 x 1.25 + 3 + 3 x 0.5) + (3 + 3 x 0.5) = 24 us.
    """
    devices = [device | {"active_power_w": 1.0} for device in fleet_data()["devices"][:2]]
    return fleet(devices=devices, links=fleet_data()["links"][:1])


def boards(shared: bool) -> Fleet:
    """Return the gateway and two boards on a link of 8 Mbit/s and 1 ms, one medium where shared.

    Alone, a board takes 2143 us, as `near` does. When both are used, each waits for 800 bit and
    256 bit of the other: 1200 + 11 + 1064 = 2275. Fusion of two: 10 x (16 + 2) / 3 = 60.
    """
    gateway, near, _ = fleet_data()["devices"]
    link = {"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1, "shared": shared}
    return fleet(devices=[gateway, near | {"name": "pi", "count": 2}], links=[link])


def cabled(latency_ms: float) -> Fleet:
    """Return the whole fleet with a cable from the gateway to `far` as well, of 4 Mbit/s."""
    cable = {"between": ["gateway", "far"], "bandwidth_mbps": 4, "latency_ms": latency_ms}
    return fleet(links=[*fleet_data()["links"], cable])


def precise(budget: int, *precisions: str) -> tuple[Profile, Fleet]:
    """Return the gateway with these precisions, and a profile in which int8 leaves 0.95 of either class.

    The whole model has 110 params, at float32 1477 bytes of memory, at int8 110 + 37 + 1000 = 1147.
    """
    shares = {"int8": [0.95, 0.95], "float16": [0.97, 0.97]}
    return profile(precision_retention=shares), alone(precision=precisions, memory_budget=budget)


WITHIN_A_SECOND = {"objective": "accuracy", "max_latency_ms": 1000, "min_retention": 0.0}
SPARING = {"objective": "devices", "min_retention": 0.8, "forbid": {"b": ["near"]}}

BY_HAND: dict[str, tuple[Fleet | tuple[Profile, Fleet], Json, float | None]] = {
    # Two devices for each class, at max(167, 2143) + 47; one device is not two.
    "survive": (pair(), {"survive": 1}, 2190),
    "survive: too few devices": (alone(), {"survive": 1}, None),
    "survive two": (pair(), {"survive": 2}, None),
    # `far` takes 3200 + 11 + 3064 = 6275 + 60 beside `near`, and is lost with it unless it has its own cable:
    # with 3 ms (3200 us, 3064 us) that is as fast as over `near`, with 2 ms 2200 + 11 + 2064 = 4275 us.
    "survive a relay": (cabled(2), {"survive": 1, "leave_out": ["gateway"]}, 4275 + 60),
    "survive a relay: behind it": (fleet(), {"survive": 1, "leave_out": ["gateway"]}, None),
    # All three serve: two may be lost, `near` (with `far`) and another. The gateway alone is left: one is enough,
    # but when `near` alone is lost, two must be left.
    "survive two relays": (fleet(), {"survive": 2}, None),
    "survive two with a cable": (cabled(2), {"survive": 2}, 4275 + 74),  # fusion 10 x (4 + 16 + 2) / 3
    # An empty sub-model of width 8 takes 50 x 4 + 20 + 1000 bytes: 1220. The gateway need not serve then.
    "pin": (pair(memory_budget=1220), {"pin": {"a": ["near"]}}, 2143 + 34),
    "pin: too small": (pair(memory_budget=1219), {"pin": {"a": ["near"]}}, None),
    "pin both": (boards(shared=False), {"pin": {"a": ["pi"]}}, 2143 + 60),
    "pin: and left out": (pair(), {"pin": {"a": ["near"]}, "leave_out": ["near"]}, None),
    # Class a on `near`, and b there as well: the gateway's share of the fusion is saved.
    "forbid": (pair(), {"forbid": {"a": ["gateway"]}}, 2143 + 34),
    "forbid: the only one": (alone(), {"forbid": {"a": ["gateway"]}}, None),
    "forbid both": (boards(shared=False), {"forbid": {"a": ["pi"]}, "leave_out": ["gateway"]}, None),
    # a on `near` and b on the gateway; together they can be nowhere.
    "together: not asked": (pair(), {"forbid": {"a": ["gateway"], "b": ["near"]}}, 2143 + 47),
    "together: nowhere": (pair(), {"forbid": {"a": ["gateway"], "b": ["near"]}, "together": [["a", "b"]]}, None),
    "together": (pair(), {"forbid": {"a": ["gateway"]}, "together": [["a", "b"]]}, 2143 + 34),
    "apart": (pair(), {"apart": [["a", "b"]]}, 2143 + 47),
    "apart: one device": (alone(), {"apart": [["a", "b"]]}, None),
    "apart and together": (pair(), {"apart": [["a", "b"]], "together": [["a", "b"]]}, None),
    # Left out, the aggregator still fuses.
    "leave out": (pair(), {"leave_out": ["gateway"]}, 2143 + 34),
    "leave out: all": (pair(), {"leave_out": ["gateway", "near"]}, None),
    "leave out: both boards": (boards(shared=False), {"leave_out": ["pi"]}, 167 + 20),
    "latency limit": (alone(), {"max_latency_ms": 0.187}, 187),
    "latency limit: missed": (alone(), {"max_latency_ms": 0.186}, None),
    # Only `near` takes so little energy.
    "energy limit": (powered(), {"max_energy_mj": 0.0275}, 2143 + 34),
    "energy limit: loose": (powered(), {"max_energy_mj": 0.167}, 187),
    "energy limit: missed": (powered(), {"max_energy_mj": 0.0274}, None),
    # What is left out needs no known power: the gateway has none here.
    "energy limit: unknown but left out": (pair(), {"max_energy_mj": 0.0275, "leave_out": ["gateway"]}, 2143 + 34),
    # To save energy takes time, here 2177 us.
    "energy": (powered(), {"objective": "energy", "max_latency_ms": 2.177}, 0.0275),
    "energy in haste": (powered(), {"objective": "energy", "max_latency_ms": 2.176}, 0.167),
    "energy: no time": (powered(), {"objective": "energy", "max_latency_ms": 0.186}, None),
    "energy of two": (powered(), {"objective": "energy", "max_latency_ms": 9, "survive": 1}, 0.1945),
    "devices": (pair(), {"objective": "devices"}, 1),
    "devices: two": (pair(), {"objective": "devices", "apart": [["a", "b"]], "max_latency_ms": 2.19}, 2),
    "devices: no time": (pair(), {"objective": "devices", "apart": [["a", "b"]], "max_latency_ms": 2.189}, None),
    # One device takes 0.464 mJ, two take 0.430 + 0.024: which it is depends on the limit.
    "devices: one at more energy": (frugal(), SPARING | {"max_energy_mj": 0.464}, 1),
    "devices: two to save energy": (frugal(), SPARING | {"max_energy_mj": 0.454}, 2),
    "devices: no energy": (frugal(), SPARING | {"max_energy_mj": 0.453}, None),
    # The whole model takes 564 + 34 us. Every unit is at least 0.1 of class a, and the most that goes at 0.9 of
    # both leaves 1490 MACs: 497 + 34 us.
    "accuracy": (alone(), WITHIN_A_SECOND | {"max_latency_ms": 0.598}, 1.0),
    "accuracy in haste": (alone(), WITHIN_A_SECOND | {"max_latency_ms": 0.597}, 0.9),
    "accuracy in more haste": (alone(), WITHIN_A_SECOND | {"max_latency_ms": 0.531}, 0.9),
    "accuracy: no time": (alone(), WITHIN_A_SECOND | {"max_latency_ms": 0.186}, None),
    "accuracy: floor": (alone(), WITHIN_A_SECOND | {"max_latency_ms": 0.597, "min_retention": 0.95}, None),
    # No sub-model at float32 keeps 0.95 of either in less than the whole: any unit is 0.05 of a class at least.
    "precision": (precise(1147, "float32", "int8"), {"min_retention": 0.95}, 564 + 34),
    "precision: too small": (precise(1146, "float32", "int8"), {"min_retention": 0.95}, None),
    "precision: too coarse": (precise(1147, "float32", "int8"), {"min_retention": 0.96}, None),
    "precision: at best": (precise(1477, "int8", "float32"), WITHIN_A_SECOND, 1.0),
    "precision: at best in little": (precise(1476, "int8", "float32"), WITHIN_A_SECOND, 0.95),
    "shared": (boards(shared=True), {"survive": 1, "leave_out": ["gateway"], "max_latency_ms": 2.335}, 2275 + 60),
    "shared: waits": (boards(shared=True), {"survive": 1, "leave_out": ["gateway"], "max_latency_ms": 2.334}, None),
    "shared by one": (boards(shared=True), {"leave_out": ["gateway", "pi-2"]}, 2143 + 34),
    "not shared": (boards(shared=False), {"survive": 1, "leave_out": ["gateway"]}, 2143 + 60),
}


def by_hand(name: str) -> tuple[Profile, Fleet, Goal, float | None]:
    """Return an instance, and the value of its best plan."""
    given, goal, value = BY_HAND[name]
    of, on = given if isinstance(given, tuple) else (profile(), given)
    return of, on, Goal.model_validate(FREE | goal), value


@pytest.mark.parametrize("name", BY_HAND)
def test_brute_force_by_hand(name: str) -> None:
    """The oracle finds what paper and pencil find."""
    of, on, goal, value = by_hand(name)
    best = best_of(of, on, goal)
    assert (None if best is None else float(best.value)) == (None if value is None else pytest.approx(value, abs=1e-9))


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    """The smallest instance that can meet a demand is solved; the smallest that cannot is called impossible."""
    of, on, goal, value = by_hand(name)
    if value is None:
        with pytest.raises(InfeasibleError, match=r"\ANo plan"):
            solve(of, on, goal)
        return
    plan = solve(of, on, goal)
    assert plan.value == pytest.approx(value, abs=1e-6)
    assert (plan.status, plan.bound) == ("optimal", plan.value)
    assert check(plan, of, on) == []


@pytest.mark.parametrize("goal", [{"max_energy_mj": 1.0}, {"objective": "energy", "max_latency_ms": 9}], ids=str)
def test_energy_of_an_unknown_power_is_an_input_error(goal: Json) -> None:
    """The gateway states no power, so nobody can plan with its energy; unless it is left out."""
    with pytest.raises(InputError, match=r"gateway.*active_power_w"):
        solve(profile(), pair(), Goal.model_validate(FREE | goal))
    assert solve(profile(), pair(), Goal.model_validate(FREE | goal | {"leave_out": ["gateway"]})).status == "optimal"


@pytest.mark.parametrize("goal", [{"pin": {"c": ["near"]}}, {"leave_out": ["nea"]}], ids=str)
def test_an_unknown_name_is_an_input_error(goal: Json) -> None:
    """Before any solving, a name that is nobody's is refused."""
    with pytest.raises(InputError, match=r"'(c|nea)' is not a "):
        solve(profile(), pair(), Goal.model_validate(FREE | goal))


def test_fewest_devices_are_not_joined_by_others() -> None:
    """Where devices count, what could serve for free stays idle, whether asked to or not."""
    plan = solve(profile(), pair(), Goal(min_retention=0.0, objective="devices"))
    assert [a.device for a in plan.assignments] == ["gateway"]
    assert plan.latency_us == 187


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
    """The same value, proven; no plan exactly where there is none; and nothing for the check to say."""
    said = {seed: disagreement(*drawn(seed)) for seed in range(first, first + CHUNK)}
    assert {seed: found for seed, found in said.items() if found is not None} == {}


def asked(goal: Goal) -> list[str]:
    """Return the keys of what a goal demands, besides its floors."""
    others = {"objective", "max_accuracy_drop", "min_retention", "leave_idle"}
    return [key for key in goal.model_dump(exclude_defaults=True) if key not in others]


def traits(of: Profile, on: Fleet, goal: Goal) -> list[object]:
    """Return what is special about an instance."""
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
        "several demands": len(asked(goal)) > 2,
        f"survive {goal.survive}": True,
        goal.objective: True,
    }
    return [*asked(goal), *(name for name, holds in found.items() if holds)]


def test_random_goals_are_of_all_sorts() -> None:
    """Every demand and every objective, with a plan and without: many of each; a good half has a plan."""
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
    keys = {key for key in Goal.model_fields if key not in ("max_accuracy_drop", "min_retention", "leave_idle")}
    names = (keys - {"objective", "method"}) | {"latency", "accuracy", "energy", "devices"}
    names |= {"choice", "relay", "medium of several", "equal devices", "two widths", "several demands"}
    assert {(name, v): seen[name, v] for name in names for v in (True, False) if seen[name, v] < 24} == {}
    rare = ["relay and survive", "survive 2"]
    assert {(name, v): seen[name, v] for name in rare for v in (True, False) if seen[name, v] < 10} == {}
    assert {n: seen["used", n] for n in (1, 2, 3, 4) if seen["used", n] < (24 if n < 4 else 5)} == {}
    assert seen["exactly"] >= 10


def test_energies_are_whole_parts_of_a_millijoule() -> None:
    """An energy of brute force is exact, so that a limit at exactly that energy can be drawn."""
    exact = [best_of(*drawn(seed)) for seed in SEEDS[:60] if drawn(seed)[2].objective == "energy"]
    values = [best.value for best in exact if best is not None]
    assert values
    assert all(isinstance(value, Fraction) and Fraction(repr(float(value))) == value for value in values)
