"""One broken plan for each rule of the check, and its violation."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

from planner.errors import InputError
from planner.rules.check import check, gap_of, status_of
from planner.schema import Goal, Plan, sha256_of
from planner.solver import solve
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, profile, tight_fleet
from tests.helpers.random_instances import random_fleet, random_profile


@lru_cache
def plan() -> Plan:
    """Return a plan of two devices, `gateway` and `near`, that leaves `far` idle."""
    return solve(profile(), tight_fleet(), Goal(min_retention=0.55, leave_idle=True))


def broken(change: Callable[[Json], object]) -> list[str]:
    """Return the violations of the plan after a change to its data."""
    data = plan().model_dump(mode="json")
    change(data)
    return check(Plan.model_validate(data), profile(), tight_fleet())


def of(name: str, data: Json) -> Json:
    """Return the assignment of a device."""
    return next(a for a in data["assignments"] if a["device"] == name)


def add(name: str, key: str, amount: float) -> Callable[[Json], object]:
    """Return a change that adds to a number of a device's assignment."""
    return lambda data: of(name, data).update({key: of(name, data)[key] + amount})


def put(name: str, **values: Any) -> Callable[[Json], object]:
    """Return a change that replaces keys of a device's assignment."""
    return lambda data: of(name, data).update(values)


def put_block(name: str, key: str, block: int, kept: list[int]) -> Callable[[Json], object]:
    """Return a change that replaces what a device keeps of one block."""
    return lambda data: of(name, data)[key].__setitem__(block, kept)


def test_the_plan_of_these_tests_is_valid() -> None:
    """The unchanged plan is valid; two devices serve one class each and the third is idle."""
    assert check(plan(), profile(), tight_fleet()) == []
    assert sorted(a.device for a in plan().assignments) == ["gateway", "near"]
    assert sorted(a.classes for a in plan().assignments) == [("a",), ("b",)]
    assert plan().idle == ("far",)


def test_a_plan_made_on_paper_is_valid() -> None:
    """The whole model on the gateway, calculated by hand.

    MACs: 1000 + 2 x 100 + 2 x 200 + 3 x 10 + 3 x 20 = 1690, at 3 MAC/us 563.33 us.
    Memory: params 50 + 2 x 7 + 2 x 11 + 3 x 3 + 3 x 5 = 110, x 4; activations 20 + 2 x 8.5; overhead 1000.
    Fusion: 10 x (8 + 2) = 100 MACs, 33.33 us.
    """
    by_hand = {
        "status": "feasible",
        "latency_us": 564 + 34,
        "bound_us": 299,
        "gap": 0.5,
        "goal": {"min_retention": 1.0},
        "profile_sha256": sha256_of(profile()),
        "fleet_sha256": sha256_of(fleet()),
        "solver": {"version": "paper", "seconds": 0.0, "seed": 0},
        "assignments": [
            {
                "device": "gateway",
                "classes": ["b", "a"],
                "embed_dim": 8,
                "kept_heads": [[0, 1], [0, 1]],
                "kept_channel_groups": [[0, 1], [0, 1]],
                "send_us": 0,
                "compute_us": 564,
                "return_us": 0,
                "memory_bytes": 1477,
                "energy_mj": None,
                "retention": {"a": 1.0, "b": 1.0},
                "estimated": True,
            }
        ],
        "idle": ["far", "near"],
        "fusion": {"device": "gateway", "latency_us": 34},
    }
    assert check(Plan.model_validate(by_hand), profile(), fleet()) == []


@pytest.mark.parametrize("seed", range(10))
def test_what_is_solved_is_valid(seed: int) -> None:
    """A solved plan has no violations, and its slowest device is its bottleneck."""
    drawn = random_profile(seed, widths=(8, 4), kinds=("a",))
    on = random_fleet(drawn, seed, tightness=2.0)
    solved = solve(drawn, on, floored())
    assert check(solved, drawn, on) == []
    assert solved.bottleneck.latency_us == max(a.latency_us for a in solved.assignments)


def use_far_too(data: Json) -> None:
    """Assign `far` a sub-model and leave it among the idle devices."""
    data["assignments"].append(of("near", data) | {"device": "far"})


def misname_idle(data: Json) -> None:
    """Replace `far` among the idle devices by an unknown device."""
    data["idle"] = ["faar"]


def drop_near(data: Json) -> None:
    """Remove the assignment of `near`, and with it a class."""
    data["assignments"].remove(of("near", data))


def put_class_twice(data: Json) -> None:
    """Name the class of `near` twice."""
    of("near", data)["classes"] *= 2


def misname_class(data: Json) -> None:
    """Add a class to `near` that is not in the profile."""
    near = of("near", data)
    near["classes"].append("A")
    near["retention"]["A"] = 1.0


def raise_bound(data: Json) -> None:
    """Raise the bound a microsecond above the latency."""
    data["bound_us"] = data["latency_us"] + 1


def be_modest(data: Json) -> None:
    """Halve the bound and state the right gap, but leave the status that claims a proof."""
    data["bound_us"] = data["latency_us"] // 2
    data["gap"] = gap_of(data["latency_us"], data["bound_us"])


def keep_less(data: Json) -> None:
    """Raise the floor to 1, for which the plan was not made."""
    data["goal"] |= {"min_retention": 1.0}


def swap_classes(data: Json) -> None:
    """Let `near` serve the other class with the sub-model of its own."""
    near = of("near", data)
    (name,) = near["classes"]
    other = {"a": "b", "b": "a"}[name]
    near |= {"classes": [name, other], "retention": near["retention"] | {other: 0.0}}


@pytest.mark.parametrize(
    ("change", "complaints"),
    [
        (lambda p: p.update(profile_sha256="f" * 64), [r"another profile: profile_sha256 is ffffffffffff\.\.\., got"]),
        (
            lambda p: p.update(fleet_sha256="f" * 64),
            [r"another fleet: fleet_sha256 is ffffffffffff\.\.\., got \w{12}\."],
        ),
        (use_far_too, [r"device 'far' must be assigned or idle once, got 2 times"]),
        (lambda p: p.update(idle=["far", "far"]), [r"device 'far' must be assigned or idle once, got 2 times"]),
        (lambda p: p.update(idle=[]), [r"device 'far' must be assigned or idle once, got 0 times"]),
        (
            misname_idle,
            [r"device 'far' .* got 0 times", r"device 'faar' is not in the fleet; did you mean 'far'\?"],
        ),
        (
            put("near", device="nearer"),
            [r"device 'near' .* got 0 times", r"device 'nearer' is not in the fleet; did you mean 'near'\?"],
        ),
        (drop_near, [r"device 'near' .* got 0 times", r"class '[ab]' must be served by a device, got none"]),
        (
            lambda p: p["fusion"].update(device="near"),
            [r"fusion\.device must be the aggregator 'gateway', got 'near'"],
        ),
        (put_class_twice, [r"near: classes must differ, got \['([ab])', '\1'\]"]),
        (misname_class, [r"near: class 'A' is not in the profile"]),
        (
            put("gateway", embed_dim=6),
            [r"gateway: embed_dim and precision must be one of \[\(8, 'float32'\), \(4, 'float32'\)\], got \(6, "],
        ),
        (put("near", embed_dim=4), [r"near: embed_dim and precision must be one of \[\(8, 'float32'\)\], got \(4, "]),
        (put_block("near", "kept_heads", 1, [2]), [r"near: kept_heads\[1\] must rise within 0\.\.1, got \[2\]"]),
        (put_block("near", "kept_heads", 0, [1, 0]), [r"near: kept_heads\[0\] must rise .* got \[1, 0\]"]),
        (put_block("near", "kept_heads", 0, [1, 1]), [r"near: kept_heads\[0\] must rise .* got \[1, 1\]"]),
        (
            put_block("gateway", "kept_channel_groups", 0, [0, 2]),
            [r"gateway: kept_channel_groups\[0\] must rise within 0\.\.1, got \[0, 2\]"],
        ),
        # As quick, but less of class b, and not the anchor head.
        (
            put_block("near", "kept_heads", 1, [0]),
            [
                r"\Anear: kept_heads\[1\] must hold head 1, the anchor head that every sub-model keeps, got \[0\]\Z",
                r"near: retention of class 'b' must be 0\.400000, got 0\.600000",
                r"near: class 'b' must keep at least 0\.550000 of its importance, got 0\.400000",
            ],
        ),
        (lambda p: of("near", p)["kept_heads"].pop(), [r"near: kept_heads must have 2 blocks, got 1"]),
        (
            lambda p: of("near", p)["kept_channel_groups"].append([]),
            [r"near: kept_channel_groups must have 2 blocks, got 3"],
        ),
        (put("near", retention={}), [r"near: retention must name its classes \['[ab]'\], got \[\]"]),
        (
            lambda p: of("near", p)["retention"].update(c=1.0),
            [r"near: retention must name its classes \['[ab]'\], got \['[ab]', 'c'\]"],
        ),
        (add("near", "send_us", -1), [r"near: send_us must be 1100, got 1099", r"latency_us must be \d+, the slowest"]),
        (
            add("near", "return_us", 1),
            [r"near: return_us must be 1032, got 1033", r"latency_us must be \d+, the slowest"],
        ),
        (add("gateway", "compute_us", 1), [r"gateway: compute_us must be \d+, got \d+"]),
        (add("gateway", "memory_bytes", -1), [r"gateway: memory_bytes must be \d+, got \d+"]),
        (put("near", estimated=True), [r"near: estimated must be False, got True"]),
        (put("near", energy_mj=1.0), [r"near: energy_mj must be 0\.\d+, got 1\.0"]),
        (put("near", energy_mj=None), [r"near: energy_mj must be 0\.\d+, got None"]),
        (put("gateway", energy_mj=1.0), [r"gateway: energy_mj must be None, got 1\.0"]),
        (
            lambda p: of("near", p)["retention"].update(dict.fromkeys(of("near", p)["classes"], 0.999)),
            [r"near: retention of class '[ab]' must be 0\.\d{6}, got 0\.999000"],
        ),
        (
            keep_less,
            [
                r"gateway: class '[ab]' must keep at least 1\.0{6} of its importance, got 0\.\d+",
                r"near: class",
            ],
        ),
        (
            swap_classes,
            [
                r"near: retention of class 'a' must be 0\.300000, got 0\.000000",
                r"near: class 'a' must keep at least 0\.550000 of its importance, got 0\.300000",
            ],
        ),
        (
            lambda p: p["fusion"].update(latency_us=1),
            [r"fusion\.latency_us must be \d+, got 1"],
        ),
        (
            lambda p: p.update(latency_us=p["latency_us"] + 1),
            [
                r"latency_us must be (\d+), the slowest device and the fusion, got",
                r"gap must be",
                r"status must be 'feas",
            ],
        ),
        (
            raise_bound,
            [
                r"bound_us must be at most latency_us \d+, got \d+",
                r"gap must be 0\.0\d+, got 0\.0",
                r"status must be 'feasible'",
            ],
        ),
        (lambda p: p.update(gap=0.1), [r"gap must be 0\.0, got 0\.1"]),
        (be_modest, [r"status must be 'feasible' at objective \d+ and bound \d+, got 'optimal'"]),
        (
            lambda p: p.update(status="feasible"),
            [r"status must be 'optimal' at objective \d+ and bound \d+, got 'feasible'"],
        ),
        (lambda p: p["goal"].update(max_latency_ms=0.5), [r"latency must be at most 0\.5 ms, got \d\.\d+ ms"]),
    ],
)
def test_each_rule(change: Callable[[Json], object], complaints: list[str]) -> None:
    """A plan that breaks one rule has exactly that violation, with the values."""
    violations = broken(change)
    assert len(violations) == len(complaints), violations
    for complaint, pattern in zip(violations, complaints, strict=True):
        assert re.search(pattern, complaint)


def test_over_budget() -> None:
    """A sub-model that fits to the byte breaks the rule when the budget shrinks by one."""
    needed = next(a for a in plan().assignments if a.device == "near").memory_bytes
    for budget, violations in (
        (needed, []),
        (needed - 1, [f"near: memory must be within the budget of {needed - 1} bytes, got {needed}"]),
    ):
        devices = tight_fleet().model_dump(mode="json")["devices"]
        devices[1]["memory_budget"] = budget
        smaller = tight_fleet(devices=devices)
        data = plan().model_dump(mode="json") | {"fleet_sha256": sha256_of(smaller)}
        assert check(Plan.model_validate(data), profile(), smaller) == violations


def test_a_fleet_that_cannot_be_timed_is_an_input_error() -> None:
    """An unknown device kind is an input error, not a violation of the plan."""
    devices = tight_fleet().model_dump(mode="json")["devices"]
    devices[1]["kind"] = "bord"
    unknown = tight_fleet(devices=devices)
    data = plan().model_dump(mode="json") | {"fleet_sha256": sha256_of(unknown)}
    with pytest.raises(InputError, match="got kind 'bord'; did you mean 'board'"):
        check(Plan.model_validate(data), profile(), unknown)


def test_gap_and_status() -> None:
    """The gap is a share of the objective, and only a gap of zero is optimal."""
    assert (gap_of(200, 150), status_of(200, 150)) == (0.25, "feasible")
    assert (gap_of(200, 200), status_of(200, 200)) == (0.0, "optimal")
    assert (gap_of(0, 0), status_of(0, 0)) == (0.0, "optimal")
