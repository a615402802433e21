"""Properties of optimal plans: changes that must not matter, and changes that must not make them worse."""

import random

import pytest

from planner.errors import InfeasibleError
from planner.rules.check import check
from planner.schema import Fleet, Goal, GoalFile, Plan, Profile, to_json
from planner.solver import SolveOptions, solve
from tests.helpers.accuracy import predictable
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import (
    CHANGED,
    DIGITS,
    best_of,
    changed,
    latency_of,
    middling,
    middling_us,
    same,
    with_device,
)


def test_most_changed_fleets_have_a_plan() -> None:
    """Few of the compared fleets have no plan, as such comparisons say little."""
    assert sum(middling_us(seed) < float("inf") for seed in CHANGED) >= 8


@pytest.mark.parametrize("seed", CHANGED)
def test_more_memory_is_never_worse(seed: int) -> None:
    """Half as much memory again on any one device never makes the plan worse."""
    drawn, on = middling(seed)
    for i, device in enumerate(on.devices):
        assert latency_of(drawn, with_device(on, i, memory_budget=device.memory_budget * 3 // 2)) <= middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_a_faster_device_is_never_worse(seed: int) -> None:
    """Doubling one MAC rate, or halving the times of one kind, never makes the plan worse."""
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
    """Twice the bandwidth and half the latency of any link never makes the plan worse."""
    drawn, on = middling(seed)
    for i in range(len(on.links)):
        links = on.model_dump(mode="json")["links"]
        links[i] |= {"bandwidth_mbps": 2 * links[i]["bandwidth_mbps"], "latency_ms": links[i]["latency_ms"] / 2}
        assert latency_of(drawn, changed(on, links=links)) <= middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_one_more_device_is_never_worse(seed: int) -> None:
    """A fast or slow additional device never makes the plan worse."""
    drawn, on = middling(seed)
    for macs_per_second in (1e8, 1e3):
        one = {"name": "extra", "macs_per_second": macs_per_second, "memory_budget": 3000, "runtime_overhead": 100}
        more = changed(on, devices=[*on.model_dump(mode="json")["devices"], one])
        assert latency_of(drawn, more) <= middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_a_lower_floor_is_never_worse(seed: int) -> None:
    """A lower retention floor never makes the plan slower."""
    drawn, on = middling(seed)
    times = [latency_of(drawn, on, Goal(min_retention=share)) for share in (0.9, 0.7, 0.5, 0.3, 0.0)]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("seed", CHANGED)
def test_the_order_of_devices_does_not_matter(seed: int) -> None:
    """Devices in reverse order give the same latency and bound."""
    drawn, on = middling(seed)
    devices = on.model_dump(mode="json")["devices"]
    assert latency_of(drawn, changed(on, devices=devices[::-1])) == middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_names_do_not_matter(seed: int) -> None:
    """Renamed devices and classes give the same latency and bound."""
    drawn, on = middling(seed)
    renamed = changed(drawn, classes=[f"Käfer {name}" for name in drawn.classes[::-1]])
    text = on.model_dump_json().replace('"d0"', '"zoo"').replace('"d1"', '"ärger"')
    assert latency_of(renamed, Fleet.model_validate_json(text)) == middling_us(seed)


@pytest.mark.parametrize("seed", CHANGED)
def test_the_order_of_classes_does_not_matter(seed: int) -> None:
    """Classes in reverse order give the same latency and bound."""
    drawn, on = middling(seed)
    data = drawn.model_dump(mode="json")
    data["classes"] = data["classes"][::-1]
    data["importance"] = {key: rows[::-1] for key, rows in data["importance"].items()}
    for width in data["widths"]:
        width["embed_retention"] = width["embed_retention"][::-1]
    assert latency_of(Profile.model_validate(data), on) == middling_us(seed)


def test_a_count_is_as_good_as_devices_named_one_by_one() -> None:
    """`pi` with count 3 equals pi-1, pi-2 and pi-3."""
    drawn = random_profile(7, num_classes=6)
    data = random_fleet(drawn, 7, num_devices=2, tightness=0.6).model_dump(mode="json")
    pi = data["devices"][1] | {"name": "pi", "count": 3}
    counted = Fleet.model_validate(data | {"devices": [data["devices"][0], pi]})
    each = [pi | {"name": f"pi-{i}", "count": 1} for i in (1, 2, 3)]
    named = Fleet.model_validate(data | {"devices": [data["devices"][0], *each]})
    plans = [solve(drawn, on, floored()) for on in (counted, named)]
    assert plans[0].latency_us == plans[1].latency_us
    assert plans[0].assignments == plans[1].assignments


@pytest.mark.parametrize(
    ("num_classes", "num_devices", "sizes"),
    [(4, 3, {"widths": (8, 4)}), (10, 6, DIGITS), (16, 6, {"num_groups": 8, "widths": (8, 4)})],
)
def test_the_same_inputs_give_the_same_plan(num_classes: int, num_devices: int, sizes: Json) -> None:
    """Equal inputs give equal plans, except for the seconds."""
    drawn = random_profile(3, num_classes=num_classes, **sizes)
    on = random_fleet(drawn, 3, num_devices=num_devices, tightness=2.0)
    assert same(
        solve(drawn, on, floored(), SolveOptions(time_limit_s=2, deterministic=True)),
        solve(drawn, on, floored(), SolveOptions(time_limit_s=2, deterministic=True)),
    )


def drawn_with_goal(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 3 classes on 3 devices of any sort, and a goal of any sort."""
    drawn = predictable(random_profile(seed, num_classes=3, penalties=seed % 2 == 0), seed)
    on = random_fleet(drawn, seed, tightness=1.5, meshed=seed % 3 > 0, choices=True)
    return drawn, on, random_goal(drawn, on, seed)


@pytest.mark.parametrize("first", range(5000, 5060, 20))
def test_every_plan_passes_the_check_and_comes_back_from_its_file(first: int) -> None:
    """Plans are valid, with a bound not beyond them, and survive a round trip through JSON."""
    found = 0
    for seed in range(first, first + 20):
        drawn, on, goal = drawn_with_goal(seed)
        assert Goal.model_validate_json(goal.model_dump_json()) == goal
        assert (
            GoalFile.model_validate_json(to_json(GoalFile.model_validate(goal.model_dump()))).model_dump(
                exclude={"schema_version", "schema_uri"}
            )
            == goal.model_dump()
        )
        try:
            plan = solve(drawn, on, goal)
        except InfeasibleError as error:
            assert str(error).startswith("No plan")  # noqa: PT017
            assert best_of(drawn, on, goal) is None
            continue
        found += 1
        assert check(plan, drawn, on) == []
        assert plan.bound >= plan.value if goal.objective == "accuracy" else plan.bound <= plan.value
        assert Plan.model_validate_json(to_json(plan)) == plan
    assert found >= 6


@pytest.mark.parametrize("seed", CHANGED)
def test_one_demand_more_is_never_faster(seed: int) -> None:
    """No additional demand makes the plan faster."""
    drawn, on = middling(seed)
    times = [latency_of(drawn, on, floored(survive=k)) for k in range(4)]
    assert times == sorted(times)
    assert times[0] == middling_us(seed)
    rng = random.Random(seed)
    goal = floored()
    for _ in range(4):
        c, other = rng.sample(drawn.classes, 2)
        name = rng.choice(on.members).name
        more: Json = rng.choice(
            [
                {"pin": goal.pin | {c: (name,)}},
                {"forbid": goal.forbid | {c: (name,)}},
                {"together": (*goal.together, (c, other))},
                {"apart": (*goal.apart, (c, other))},
                {"leave_out": (*goal.leave_out, name)},
            ]
        )
        stricter = Goal.model_validate(goal.model_dump() | more)
        assert latency_of(drawn, on, stricter) >= latency_of(drawn, on, goal)
        goal = stricter
