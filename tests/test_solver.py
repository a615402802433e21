"""The solver against brute force, against the yardsticks, and against itself on changed inputs."""

import re
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from typing import Any

import brute_force
import pytest
from brute_force import Best
from pencil import fleet, fleet_data, profile, profile_data
from random_instances import random_fleet, random_profile

from planner.check import check
from planner.errors import InfeasibleError, InputError, PlannerError, TimeLimitError
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import explain, many, solve
from planner.solver.explain import smallest_addition, with_more_memory
from planner.solver.instance import build

Json = dict[str, Any]

SMALL = range(320)
# Instances as large as the digits ViT: 4 blocks of 4 heads and 32 channel groups.
DIGITS = {"depth": 4, "num_heads": 4, "num_groups": 32}
UNITS = {"KiB": 2**10, "MiB": 2**20}


def changed(data: Fleet | Profile, **changes: Any) -> Any:
    """Return a fleet or a profile with some keys replaced."""
    return type(data).model_validate(data.model_dump(mode="json") | changes)


def with_device(on: Fleet, i: int, **changes: Any) -> Fleet:
    """Return a fleet with some keys of one device replaced."""
    devices = on.model_dump(mode="json")["devices"]
    devices[i] |= changes
    return changed(on, devices=devices)


def roomy(on: Fleet, *devices: int) -> Fleet:
    """Return a fleet where these devices hold any sub-model."""
    for i in devices or range(len(on.devices)):
        on = with_device(on, i, memory_budget=10**9)
    return on


def sharpened(drawn: Profile) -> Profile:
    """Return a profile whose classes need different units: each importance cubed, then normalised."""
    importance = drawn.model_dump(mode="json")["importance"]
    for heads, groups in zip(importance["heads"], importance["channel_groups"], strict=True):
        total = sum(share**3 for block in [*heads, *groups] for share in block)
        for block in [*heads, *groups]:
            block[:] = [round(share**3 / total, 7) for share in block]
    return changed(drawn, importance=importance)


@lru_cache
def small(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 2 to 4 classes on 1 to 3 devices, with 8 units; some with a latency table, some with 2 widths."""
    drawn = random_profile(
        seed,
        num_classes=2 + seed % 3,
        widths=(8, 4) if seed % 3 == 0 else (8,),
        kinds=("a",) if seed % 2 else (),
    )
    tightness = (0.15, 0.3, 0.5, 1.0)[seed % 4]
    on = random_fleet(
        drawn, seed, num_devices=(1, 2, 3, 3, 2, 3, 2)[seed % 7], tightness=tightness, varied=seed % 5 < 2
    )
    if seed % 8 < 5:
        # Sharing is worth while: classes differ, boards are slow, messages and fusion quick.
        widths = [width | {"fixed_macs": 0} for width in drawn.model_dump(mode="json")["widths"]]
        drawn = changed(sharpened(drawn), widths=widths, fusion_hidden=1)
        for i, device in enumerate(on.devices):
            if i and seed % 2 and seed % 3 == i % 3:
                on = with_device(on, i, macs_per_second=None, kind="a")
            elif device.macs_per_second is not None:
                on = with_device(on, i, macs_per_second=1e6 * (20 + seed % 3 + 3 * i))
        on = changed(on, links=[], default_link={"bandwidth_mbps": 500, "latency_ms": 0.01})
    goals = [Goal(), Goal(max_accuracy_drop=0.05), Goal(min_retention=0.3 + seed % 7 / 10)]
    return drawn, on, goals[seed % 13 % 3]


def best_of(drawn: Profile, on: Fleet, goal: Goal) -> Best | None:
    """Return what brute force finds."""
    profile_json, fleet_json = drawn.model_dump(mode="json"), on.model_dump(mode="json")
    if goal.min_retention is not None:
        num_classes = len(drawn.classes)
        floors = [[goal.min_retention] * num_classes] * num_classes
    else:
        assert goal.max_accuracy_drop is not None
        floors = brute_force.floors_by_drop(profile_json, goal.max_accuracy_drop)
    return brute_force.least_latency(profile_json, fleet_json, floors)


@lru_cache
def small_best(seed: int) -> Best | None:
    """Return what brute force finds for `small`."""
    return best_of(*small(seed))


def infeasible() -> list[int]:
    """Return the seeds of `small` for which there is no plan."""
    return [seed for seed in SMALL if small_best(seed) is None]


def latency_of(drawn: Profile, on: Fleet, goal: Goal | None = None) -> float:
    """Return the optimal latency [us]; infinite where no plan exists."""
    try:
        plan = solve(drawn, on, goal)
    except InfeasibleError:
        return float("inf")
    assert plan.status == "optimal"
    return plan.latency_us


# --- brute force


@pytest.mark.parametrize("seed", SMALL)
def test_brute_force_agrees(seed: int) -> None:
    """The same latency to the microsecond, proven; and no plan exactly where there is none."""
    drawn, on, goal = small(seed)
    best = small_best(seed)
    if best is None:
        with pytest.raises(InfeasibleError, match=r"\ANo plan: .*\.\Z"):
            solve(drawn, on, goal)
        return
    plan = solve(drawn, on, goal)
    assert plan.latency_us == best.latency_us
    assert (plan.status, plan.bound_us, plan.gap) == ("optimal", plan.latency_us, 0.0)
    assert check(plan, drawn, on) == []


def test_brute_force_sees_all_sorts_of_fleets() -> None:
    """Both verdicts, both kinds of goal, both widths, one device and several: dozens of each."""
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


@pytest.mark.parametrize("seed", SMALL[::4])
def test_the_method_for_many_classes_is_sound_on_few(seed: int) -> None:
    """Its bound is below the best plan, its plan is no better, and it calls nothing impossible that is possible."""
    drawn, on, goal = small(seed)
    best = small_best(seed)
    instance = build(drawn, on, goal)
    found = many.search(instance, deadline=float("inf"), progress=lambda best, bound: None)
    if best is None:
        assert found.placed is None
        return
    assert found.bound_us is not None
    assert found.bound_us <= best.latency_us
    if found.placed is not None:
        slowest = max(instance.latency_us(p.option, p.kept) for p in found.placed)
        fusion_us = instance.fusion_us(sum(p.option.embed_dim for p in found.placed))
        assert slowest + fusion_us >= best.latency_us
        assert all(instance.fits(p.option, p.kept) for p in found.placed)
        assert all(instance.meets_floors(p.option, p.classes, p.kept) for p in found.placed)


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


# --- bounds and yardsticks


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
def test_bound_below_plan_below_yardsticks(num_classes: int, num_devices: int, tightness: float, sizes: Json) -> None:
    """Bound <= plan <= each yardstick's plan, whose own bound is not above the plan; all pass the check."""
    yardsticks = 0
    for instance_seed in (1, 2):
        drawn = random_profile(instance_seed, num_classes=num_classes, **sizes)
        on = random_fleet(drawn, instance_seed, num_devices=num_devices, tightness=tightness)
        on = roomy(on) if tightness > 1 else on
        plan = solve(drawn, on)
        assert plan.bound_us <= plan.latency_us
        for method in ("random-equal", "greedy"):
            for seed in range(4):
                try:
                    other = solve(drawn, on, Goal(method=method), seed=seed)
                except InfeasibleError as error:
                    assert str(error).startswith(f"No plan by {method}: ")  # noqa: PT017
                    continue
                yardsticks += 1
                assert check(other, drawn, on) == []
                assert other.bound_us <= plan.latency_us
                assert plan.bound_us <= other.latency_us
                assert plan.latency_us <= other.latency_us or plan.status != "optimal"
                assert (other.goal.method, other.solver.seed) == (method, seed)
    assert yardsticks >= 4


def test_yardsticks_draw_by_seed() -> None:
    """The same seed gives the same plan; some other seed gives another."""
    drawn = random_profile(1, num_classes=6)
    on = roomy(random_fleet(drawn, 1))
    for method in ("random-equal", "greedy"):
        plans = [solve(drawn, on, Goal(method=method), seed=seed).assignments for seed in (0, 0, 1, 2, 3)]
        assert plans[0] == plans[1]
        assert any(plan != plans[0] for plan in plans[2:])


# --- what must not matter, and what must not hurt


CHANGED = range(400, 412)


@lru_cache
def middling(seed: int) -> tuple[Profile, Fleet]:
    """Return 5 classes, 12 units and 3 devices of kinds "a" and "b", or with MAC rates."""
    drawn = random_profile(seed, num_classes=5, num_groups=4, kinds=("a", "b"), widths=(8, 4) if seed % 2 else (8,))
    return drawn, random_fleet(drawn, seed, tightness=0.5, varied=True)


@lru_cache
def middling_us(seed: int) -> float:
    """Return the latency of `middling` [us]."""
    return latency_of(*middling(seed))


def test_most_changed_fleets_have_a_plan() -> None:
    """A comparison with an impossible fleet says little, so few of them are."""
    assert sum(middling_us(seed) < float("inf") for seed in CHANGED) >= 8


@pytest.mark.parametrize("seed", CHANGED)
def test_more_memory_is_never_worse(seed: int) -> None:
    """Half as much again on any one device."""
    drawn, on = middling(seed)
    for i, device in enumerate(on.devices):
        assert latency_of(drawn, with_device(on, i, memory_budget=device.memory_budget * 3 // 2)) <= middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_a_faster_device_is_never_worse(seed: int) -> None:
    """Every MAC rate doubled, one after the other; or every time in the table of a kind halved."""
    drawn, on = middling(seed)
    for i, device in enumerate(on.devices):
        if device.macs_per_second:
            faster = with_device(on, i, macs_per_second=2 * device.macs_per_second)
            assert latency_of(drawn, faster) <= middling_us(seed)
    tables = drawn.model_dump(mode="json")["latency"]
    for row in tables["a"]:
        row |= {key: row[key] / 2 for key in row if key.endswith("_us")}
    assert latency_of(changed(drawn, latency=tables), on) <= middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_a_faster_link_is_never_worse(seed: int) -> None:
    """Each link in turn, and the default, at twice the bandwidth and half the latency."""
    drawn, on = middling(seed)
    for i in range(len(on.links)):
        links = on.model_dump(mode="json")["links"]
        links[i] |= {"bandwidth_mbps": 2 * links[i]["bandwidth_mbps"], "latency_ms": links[i]["latency_ms"] / 2}
        assert latency_of(drawn, changed(on, links=links)) <= middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_one_more_device_is_never_worse(seed: int) -> None:
    """A fast one and a slow one: at worst, it stays idle."""
    drawn, on = middling(seed)
    for macs_per_second in (1e8, 1e3):
        one = {"name": "extra", "macs_per_second": macs_per_second, "memory_budget": 3000, "runtime_overhead": 100}
        more = changed(on, devices=[*on.model_dump(mode="json")["devices"], one])
        assert latency_of(drawn, more) <= middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_a_lower_floor_is_never_worse(seed: int) -> None:
    """The less a class must keep, the faster; by retention and by a larger drop in accuracy."""
    drawn, on = middling(seed)
    times = [latency_of(drawn, on, Goal(min_retention=share)) for share in (0.9, 0.7, 0.5, 0.3, 0.0)]
    assert times == sorted(times, reverse=True)
    recovery = drawn.model_dump(mode="json")["recovery"]
    # The same classes are hard at both drops, as they are in a calibrated profile.
    recovery[1]["class_need"] = recovery[0]["class_need"]
    calibrated = changed(drawn, recovery=recovery)
    times = [latency_of(calibrated, on, Goal(max_accuracy_drop=drop)) for drop in (0.02, 0.04, 0.05, 0.5)]
    assert times == sorted(times, reverse=True)
    # Between two calibrated drops the stricter one holds.
    assert (times[0], times[2]) == (times[1], times[3])


@pytest.mark.parametrize("seed", CHANGED)
def test_the_order_of_devices_does_not_matter(seed: int) -> None:
    """The same devices back to front."""
    drawn, on = middling(seed)
    devices = on.model_dump(mode="json")["devices"]
    assert latency_of(drawn, changed(on, devices=devices[::-1])) == middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_names_do_not_matter(seed: int) -> None:
    """Devices and classes may be called anything."""
    drawn, on = middling(seed)
    renamed = changed(drawn, classes=[f"Käfer {name}" for name in drawn.classes[::-1]])
    text = on.model_dump_json().replace('"d0"', '"zoo"').replace('"d1"', '"ärger"')
    assert latency_of(renamed, Fleet.model_validate_json(text)) == middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_the_order_of_classes_does_not_matter(seed: int) -> None:
    """The same classes back to front, with all that is known of them."""
    drawn, on = middling(seed)
    data = drawn.model_dump(mode="json")
    data["classes"] = data["classes"][::-1]
    data["importance"] = {key: rows[::-1] for key, rows in data["importance"].items()}
    for entry in [*data["widths"], *data["recovery"]]:
        key = "embed_retention" if "embed_retention" in entry else "class_need"
        entry[key] = entry[key][::-1]
    assert latency_of(Profile.model_validate(data), on) == middling_us(seed)


def test_a_count_is_as_good_as_devices_named_one_by_one() -> None:
    """`pi` with count 3, and pi-1 to pi-3."""
    drawn = random_profile(7, num_classes=6)
    data = random_fleet(drawn, 7, num_devices=2, tightness=0.6).model_dump(mode="json")
    pi = data["devices"][1] | {"name": "pi", "count": 3}
    counted = Fleet.model_validate(data | {"devices": [data["devices"][0], pi]})
    each = [pi | {"name": f"pi-{i}", "count": 1} for i in (1, 2, 3)]
    named = Fleet.model_validate(data | {"devices": [data["devices"][0], *each]})
    plans = [solve(drawn, on) for on in (counted, named)]
    assert plans[0].latency_us == plans[1].latency_us
    assert plans[0].assignments == plans[1].assignments


def same(a: Plan, b: Plan) -> bool:
    """Say whether two plans differ in nothing but how long they took."""
    data = [plan.model_dump(mode="json") for plan in (a, b)]
    for plan in data:
        del plan["solver"]["seconds"]
    return data[0] == data[1]


@pytest.mark.parametrize(
    ("num_classes", "num_devices", "sizes"), [(4, 3, {"widths": (8, 4)}), (10, 6, DIGITS), (16, 6, {"num_groups": 8})]
)
def test_the_same_inputs_give_the_same_plan(num_classes: int, num_devices: int, sizes: Json) -> None:
    """To the last unit; only the seconds differ."""
    drawn = random_profile(3, num_classes=num_classes, **sizes)
    on = random_fleet(drawn, 3, num_devices=num_devices, tightness=2.0)
    assert same(solve(drawn, on), solve(drawn, on))


# --- goals


@pytest.mark.parametrize("seed", CHANGED[:6])
def test_leave_idle_leaves_the_latency(seed: int) -> None:
    """The same latency with or without it; without it, no more devices are idle and no less is retained."""
    drawn = middling(seed)[0]
    on = random_fleet(drawn, seed, num_devices=5, tightness=1.5)
    busy, idle = (solve(drawn, on, Goal(leave_idle=leave)) for leave in (False, True))
    assert busy.latency_us == idle.latency_us
    assert len(busy.idle) <= len(idle.idle)

    def kept(plan: Plan) -> float:
        return sum(share for a in plan.assignments for share in a.retention.values())

    assert kept(busy) >= kept(idle) - 1e-6


def test_leave_idle_leaves_devices_idle() -> None:
    """Two equal devices, of which one serves both classes in the time of one: the other is used unless left idle."""
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
    """A microsecond less than the optimum: the message has the limit, what is possible, and what would help."""
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


def test_the_yardsticks_heed_the_latency_limit() -> None:
    """A plan by a yardstick is within the limit, or there is none."""
    drawn = random_profile(1, num_classes=4)
    on = roomy(random_fleet(drawn, 1))
    for method in ("random-equal", "greedy"):
        free = solve(drawn, on, Goal(method=method))
        limit_ms = (free.latency_us - 1) / 1000
        assert solve(drawn, on, Goal(method=method, max_latency_ms=limit_ms)).latency_us <= 1000 * limit_ms
        with pytest.raises(InfeasibleError, match=f"No plan by {method}"):
            solve(drawn, on, Goal(method=method, max_latency_ms=0.001))


def test_a_floor_of_one_keeps_the_whole_model() -> None:
    """Every unit of the random profile matters to some class, so nothing can go."""
    for seed in range(5):
        drawn = random_profile(seed, widths=(8, 4))
        plan = solve(drawn, random_fleet(drawn, seed, tightness=4.0), Goal(min_retention=1.0))
        for a in plan.assignments:
            assert a.embed_dim == 8
            assert a.kept_heads == ((0, 1),) * drawn.depth
            assert a.kept_channel_groups == ((0, 1),) * drawn.depth
            assert set(a.retention.values()) == {1.0}


def test_a_floor_of_zero_keeps_what_is_free() -> None:
    """Nothing must be kept: the optimum is the least time of an empty sub-model of either width.

    Width 4 on the gateway: 500 MACs / 3 = 166.67 us, fusion 10 x (4 + 2) / 3 = 20 us.
    """
    plan = solve(profile(), fleet(), Goal(min_retention=0))
    assert (plan.latency_us, plan.bound_us) == (187, 187)
    assert {name for a in plan.assignments for name in a.classes} == {"a", "b"}


# --- when nothing fits


def test_the_reason_is_a_class() -> None:
    """Width 8 takes 1220 bytes when empty; width 4 takes 1110, but cannot retain enough of class b in 30 bytes."""
    devices = [d | {"memory_budget": 1140} for d in fleet_data()["devices"]]
    message = (
        r"\ANo plan: class 'b' needs at least 1\.2 KiB on any device; the largest budget is 1\.1 KiB \(gateway\)\. "
        r"Smallest change that works: \+0\.\d KiB on \w+\.\Z"
    )
    with pytest.raises(InfeasibleError, match=message):
        solve(profile(), fleet(devices=devices))


def test_the_reason_is_the_fleet() -> None:
    """A gateway that holds either class, but not both."""
    gateway = fleet_data()["devices"][0] | {"memory_budget": 1330}
    message = r"\ANo plan: each class fits on some device, but the 1 devices together cannot hold all 2 of them\. Small"
    with pytest.raises(InfeasibleError, match=message):
        solve(profile(), fleet(devices=[gateway], links=[]))


def test_the_reason_is_the_model() -> None:
    """No width retains any of class a, whatever is kept: no amount of memory helps, and none is named."""
    widths = profile_data()["widths"]
    for width in widths:
        width["embed_retention"][0] = 0.1
    with pytest.raises(InfeasibleError, match=r"\ANo plan: class 'a' ") as caught:
        solve(profile(widths=widths), fleet())
    assert "MiB" not in str(caught.value)


def least_addition(drawn: Profile, on: Fleet, goal: Goal, name: str, most: int) -> int:
    """Return by bisection with brute force how many bytes more on a device make the fleet feasible."""
    low, high = 0, most
    assert best_of(drawn, with_more_memory(on, name, high), goal) is not None
    while high - low > 1:
        middle = (low + high) // 2
        feasible = best_of(drawn, with_more_memory(on, name, middle), goal) is not None
        low, high = (low, middle) if feasible else (middle, high)
    return high


@pytest.mark.parametrize("seed", infeasible()[:40])
def test_the_smallest_addition_is_the_smallest(seed: int) -> None:
    """Brute force, asked byte by byte, names the same addition for every device; a byte less, and nothing fits."""
    drawn, on, goal = small(seed)
    for device in on.devices:
        found = smallest_addition(build(drawn, on, goal), device.name, seconds=20)
        assert found is not None
        assert found == least_addition(drawn, on, goal, device.name, most=2**20)


@pytest.mark.parametrize("seed", infeasible()[:40])
def test_the_advice_works(seed: int) -> None:
    """What the message names is enough when done, and 2 % less memory is not; what it does not name does not work."""
    drawn, on, goal = small(seed)
    with pytest.raises(InfeasibleError, match=r"Smallest change that works: ") as caught:
        solve(drawn, on, goal)
    said = str(caught.value)
    memory = re.search(r"\+([\d.]*\d) (KiB|MiB) on (\w+)", said)
    assert memory is not None
    name = memory[3]
    enough = int(float(memory[1]) * UNITS[memory[2]])
    assert latency_of(drawn, with_more_memory(on, name, enough), goal) < float("inf")
    exact = smallest_addition(build(drawn, on, goal), name, seconds=20)
    assert exact is not None
    # Written in tenths of a KiB, rounded up.
    assert 0 <= enough - exact <= 103
    assert latency_of(drawn, with_more_memory(on, name, min(exact - 1, exact * 98 // 100)), goal) == float("inf")
    drop = re.search(r"--max-accuracy-drop ([\d.]*\d)", said)
    share = re.search(r"--min-retention ([\d.]*\d)", said)
    if goal.min_retention is not None:
        assert drop is None
        lowered = float(share[1]) if share else 0.0
        assert share is None or best_of(drawn, on, Goal(min_retention=lowered)) is not None
        # A thousandth more is too much.
        assert best_of(drawn, on, Goal(min_retention=lowered + 0.001)) is None
    else:
        assert share is None
        larger = goal.max_accuracy_drop == 0.02 and best_of(drawn, on, Goal(max_accuracy_drop=0.05)) is not None
        assert (drop is not None) == larger


def test_more_memory_goes_to_one_device_of_a_count() -> None:
    """`pi-2` gets the memory; its twins and their links stay as they are."""
    pi = fleet_data()["devices"][1] | {"name": "pi", "count": 3}
    links = [{"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}]
    on = fleet(devices=[fleet_data()["devices"][0], pi], links=links)
    more = with_more_memory(on, "pi-2", 7)
    assert {d.name: d.memory_budget for d in more.members} == {
        "gateway": 2000,
        "pi-1": 2000,
        "pi-2": 2007,
        "pi-3": 2000,
    }
    assert [link.between for link in more.links] == [("gateway", f"pi-{i}") for i in (1, 2, 3)]


@pytest.mark.parametrize("power", range(0, 46, 3))
def test_sizes_in_messages_are_on_the_safe_side(power: int) -> None:
    """Demand is rounded up and supply down, at any size."""
    for num_bytes in (2**power, 2**power + 1, 2**power * 4 // 3, 2**power * 997 // 512):
        for up in (False, True):
            number, unit = explain.mib(num_bytes, up=up).split()
            said = float(number) * UNITS[unit]
            assert said >= num_bytes if up else said <= num_bytes
            assert abs(said - num_bytes) <= UNITS[unit] / 10


# --- limits


@pytest.mark.parametrize(
    ("num_classes", "num_devices"),
    [(12, 8), (40, 20)],
)
@pytest.mark.parametrize("tightness", [0.12, 0.3, 2.0])
@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_out_of_time_is_not_impossible(num_classes: int, num_devices: int, tightness: float, seconds: float) -> None:
    """A plan that passes the check, or word that time ran out; never that no plan exists, since one does."""
    drawn = random_profile(num_classes, num_classes=num_classes, **DIGITS)
    # One device holds the whole model, so there is a plan.
    on = roomy(random_fleet(drawn, 1, num_devices=num_devices, tightness=tightness), num_devices - 1)
    try:
        plan = solve(drawn, on, time_limit_s=seconds)
    except TimeLimitError as error:
        assert str(error) == (  # noqa: PT017
            f"No plan found within {seconds:g} s (not proven impossible). Raise --time-limit."
        )
    else:
        assert check(plan, drawn, on) == []


@pytest.mark.parametrize("seed", range(4))
def test_more_than_twelve_classes(seed: int) -> None:
    """Subsets can no longer be listed: the plan passes the check and its bound is below it, the gap stated."""
    drawn = random_profile(seed, num_classes=13 + 3 * seed, num_groups=8, kinds=("a",))
    on = random_fleet(drawn, seed, num_devices=4 + seed, tightness=2.0)
    plan = solve(drawn, on)
    assert check(plan, drawn, on) == []
    assert plan.bound_us <= plan.latency_us
    assert plan.gap == pytest.approx((plan.latency_us - plan.bound_us) / plan.latency_us)


def test_more_than_twelve_classes_that_do_not_fit() -> None:
    """A hundred bytes hold no class at all."""
    drawn = random_profile(1, num_classes=14)
    devices = random_fleet(drawn, 1).model_dump(mode="json")["devices"]
    tiny = changed(random_fleet(drawn, 1), devices=[d | {"memory_budget": 1} for d in devices])
    with pytest.raises(InfeasibleError, match=r"\ANo plan: class '\d+' needs at least [\d.]+ KiB on any device"):
        solve(drawn, tiny)


def test_progress_is_told() -> None:
    """Bounds rise, plans get better, and the last of both are the plan's."""
    drawn = random_profile(2, num_classes=8, num_groups=16)
    told: list[tuple[int | None, int]] = []
    plan = solve(drawn, random_fleet(drawn, 2, tightness=1.0), progress=lambda best, bound: told.append((best, bound)))
    bests = [best for best, _ in told if best is not None]
    bounds = [bound for _, bound in told]
    assert bests == sorted(bests, reverse=True)
    assert bounds == sorted(bounds)
    assert (bests[-1], bounds[-1]) == (plan.latency_us, plan.bound_us)


ABSURD = [
    {"memory_budget": 10**300},
    {"memory_budget": 10**19},
    {"runtime_overhead": 10**30},
    {"macs_per_second": 1e-300},
    {"macs_per_second": 1e300},
    {"active_power_w": 1e300},
]


@pytest.mark.parametrize("absurd", ABSURD, ids=str)
def test_absurd_numbers_are_refused_or_planned(absurd: Json) -> None:
    """A number that no device has is an input error or makes a plan: never a traceback."""
    devices = fleet_data()["devices"]
    devices[0] |= absurd
    try:
        alone = fleet(devices=devices[:1], links=[])
        plan = solve(profile(), alone)
    except (PlannerError, ValueError) as error:
        # pydantic's ValidationError is what a file's InputError is made from.
        assert isinstance(error, (InputError, InfeasibleError)) or "validation error" in str(error)  # noqa: PT017
    else:
        assert check(plan, profile(), alone) == []


def test_the_solver_needs_no_torch() -> None:
    """Whoever only plans does not wait for torch to be imported."""
    code = "import planner.solver, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_latency_limit_is_exact_in_decimals() -> None:
    """1.001 ms are 1001 us, though 1000 * 1.001 is less in binary."""
    assert Goal(max_latency_ms=1.001).max_latency_us == 1001
    assert all(Goal(max_latency_ms=us / 1000).max_latency_us == us for us in range(1, 5000))


def test_more_boards_do_not_slow_many_classes_down() -> None:
    """With 13 classes and a slow aggregator, 20 boards are no slower than one: the fusion of more would cost time."""
    drawn = random_profile(5, num_classes=13, depth=2, num_heads=2, num_groups=4)
    devices = [{"name": "hub", "macs_per_second": 2e5, "memory_budget": "64MiB", "runtime_overhead": 0}]
    link = {"bandwidth_mbps": 100.0, "latency_ms": 0.1}
    latencies = []
    for count in (1, 20):
        boards = {"name": "board", "count": count, "macs_per_second": 2e9, "memory_budget": "64MiB"}
        fields = {"aggregator": "hub", "devices": [*devices, boards | {"runtime_overhead": 0}], "default_link": link}
        latencies.append(solve(drawn, Fleet.model_validate(fields), Goal(min_retention=0.5)).latency_us)
    assert latencies[1] <= latencies[0]


def with_width(**changes: float) -> Profile:
    """Return a small profile whose one width has some numbers replaced."""
    fields = random_profile(3).model_dump()
    fields["widths"][0].update(changes)
    return Profile.model_validate(fields)


@pytest.mark.parametrize("key", ["fixed_macs", "fixed_params"])
def test_absurd_profiles_are_refused(key: str) -> None:
    """Numbers that leave 64 bits end in a sentence, not in a traceback or a reason that is not true."""
    with pytest.raises(InputError, match="absurdly large or small"):
        solve(with_width(**{key: 10**30}), random_fleet(random_profile(3), 3))


def test_large_budgets_and_fine_decimals_are_planned() -> None:
    """16 TiB counted in millionths of a byte would leave 64 bits; the plan is made and valid all the same."""
    drawn = with_width(head_activation_bytes=6528.123457)
    fields = random_fleet(random_profile(3), 3).model_dump()
    for device in fields["devices"]:
        device["memory_budget"] = 2**44
    on = Fleet.model_validate(fields)
    assert check(solve(drawn, on), drawn, on) == []


def test_a_device_too_small_for_nothing_at_all_gets_its_addition() -> None:
    """With a floor of 0 the empty sub-model is one: what it lacks is named, and is enough."""
    data = fleet_data()
    data["devices"] = [data["devices"][0] | {"memory_budget": 1001}]
    data["links"] = []
    drawn, on = profile(), Fleet.model_validate(data)
    goal = Goal(min_retention=0)
    with pytest.raises(InfeasibleError, match=r"Smallest change that works: \+"):
        solve(drawn, on, goal)
    missing = smallest_addition(build(drawn, on, goal), "gateway", 10)
    assert missing is not None
    assert solve(drawn, with_more_memory(on, "gateway", missing), goal).status == "optimal"
    with pytest.raises(InfeasibleError):
        solve(drawn, with_more_memory(on, "gateway", missing - 1), goal)
