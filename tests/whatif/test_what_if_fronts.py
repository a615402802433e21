"""Pareto fronts, purchases and moves: each point and gain against a separate solve, or by hand."""

import itertools
from typing import Any

import pandas as pd
import pytest

from planner.errors import InfeasibleError, InputError
from planner.rules.diff import PlanDiff, diff_frame, plan_diff
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import solve
from planner.whatif import Against, fronts, next_best, pareto, today_of
from tests.helpers import pencil
from tests.helpers.goals import floored
from tests.helpers.random_instances import timed_in_c
from tests.helpers.what_if_instances import by_hand, instance

COLUMNS = ["against", "limit", "value", "latency_us", "bound_us", "gap", "status"]


def fleet_of(seed: int) -> tuple[Profile, Fleet]:
    """Return a small instance where speed has a price: boards of different rates and powers."""
    profile, fleet = instance(seed, tightness=1.0)

    def spread(data: dict[str, Any]) -> None:
        for i, device in enumerate(data["devices"]):
            device |= {"kind": None, "macs_per_second": 1e6 * (30 + 20 * i), "active_power_w": 1.0 + 3 * i}

    return profile, by_hand(fleet, spread)


def plan_within(profile: Profile, fleet: Fleet, against: Against, limit: float) -> Plan:
    """Return the plan for one limit by an independent solve."""
    if against == "accuracy":
        return solve(profile, fleet, Goal(max_accuracy_drop=limit))
    if against == "energy":
        return solve(profile, fleet, floored(max_energy_mj=limit))

    def scale(data: dict[str, Any]) -> None:
        for device in data["devices"]:
            device["memory_budget"] = int(device["memory_budget"] * limit)

    return solve(profile, by_hand(fleet, scale), floored())


@pytest.mark.parametrize("against", ["accuracy", "memory", "energy"])
@pytest.mark.parametrize("seed", [1, 2, 8])
def test_every_point_is_a_solve_and_none_is_beaten(seed: int, against: Against) -> None:
    """Latency and bound equal a separate solve with the limit, and no point dominates another.

    Bounds against accuracy are those of any plan within the drop.
    """
    profile, fleet = fleet_of(seed)
    today = today_of(profile, fleet, floored())
    front = pareto(today, against, points=5)
    assert list(front.columns) == COLUMNS
    assert set(front["against"]) == {against}
    assert len(front) >= 1
    points: Any = front.itertuples()
    for point in points:
        plan = plan_within(profile, fleet, against, point.limit)
        bound_us = plan.goal_bound_us if against == "accuracy" else plan.bound_us
        assert (point.latency_us, point.bound_us) == (plan.latency_us, bound_us)
        assert point.gap == pytest.approx(1 - point.bound_us / point.latency_us)
        assert (point.status == "optimal") == (point.bound_us == point.latency_us)
        if against == "accuracy":
            assert plan.predicted_accuracy is not None
            whole = plan.predicted_accuracy.accuracy + plan.predicted_accuracy.loss
            # Near to today's plan, it may be another plan of this latency; it keeps the drop as well.
            assert 0 <= whole - point.value <= point.limit + 1e-6
        if against == "memory":
            assert point.value == sum(int(member.memory_budget * point.limit) for member in fleet.members)
    paid = -front["value"] if against == "accuracy" else front["value"]
    pairs = sorted(zip(paid, front["latency_us"], strict=True))
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(pairs))
    if against != "accuracy":
        # The fastest plan of all is an end of the front, up to what gains nothing.
        assert front["latency_us"].min() <= today.row.latency_us


def test_the_ends_of_the_fronts() -> None:
    """No plan takes less energy or memory than the first point, and none allows a larger drop."""
    profile, fleet = fleet_of(2)
    today = today_of(profile, fleet, floored())
    energy, accuracy = (pareto(today, against, points=4) for against in ("energy", "accuracy"))
    lowest = solve(profile, fleet, floored(objective="energy", max_latency_ms=1e6)).objective_value
    assert lowest is not None
    assert energy["limit"].min() == pytest.approx(lowest, abs=2e-4)
    # The point of least memory may be beaten, and so not be on the front.
    factor = fronts._factors(today, 2)[0]
    plan_within(profile, fleet, "memory", factor)
    with pytest.raises(InfeasibleError):
        plan_within(profile, fleet, "memory", factor - 1 / 128)
    # Half a point to 20, evenly by their logarithm: a factor of 40^(1/3).
    assert set(accuracy["limit"]) <= {0.005, 0.0171, 0.0585, 0.2}
    model = profile.accuracy_model
    assert model is not None
    assert (accuracy["value"] >= 1 - model.whole_error - accuracy["limit"] - 1e-6).all()


def test_what_a_front_needs() -> None:
    """A front needs a plan, at least two points, an accuracy model for accuracy and powers for energy."""
    profile, fleet = fleet_of(2)
    starved = by_hand(fleet, lambda data: [d.update(memory_budget=d["runtime_overhead"] + 9) for d in data["devices"]])
    with pytest.raises(InfeasibleError, match=r"^No plan: "):
        pareto(today_of(profile, starved, floored()), "memory")
    floors = today_of(profile.replace(accuracy_model=None), fleet, floored())
    with pytest.raises(InputError, match=r"profile 'random-2' has no accuracy model: no accuracy to set"):
        pareto(floors, "accuracy")
    powerless = by_hand(fleet, lambda data: [d.update(active_power_w=None) for d in data["devices"]])
    with pytest.raises(InfeasibleError, match="active_power_w"):
        pareto(today_of(profile, powerless, floored()), "energy")
    with pytest.raises(InputError, match=r"`points` must be at least 2, got 1\."):
        pareto(today_of(profile, fleet, floored()), "energy", points=1)


@pytest.mark.parametrize("seed", [1, 2])
def test_gains_are_exact_and_sorted(seed: int) -> None:
    """Each gain equals a solve of the changed fleet, and no purchase makes a fleet slower."""
    profile, fleet = fleet_of(seed)
    today = today_of(profile, fleet, floored())
    frame = next_best(today, ["d0", "esp32-s3"])
    assert frame["gain_us"].tolist() == sorted(frame["gain_us"], reverse=True)
    assert frame["gain_us"].min() >= 0
    expected = ["+ d0", "+ esp32-s3", *(f"d{i}.memory x2" for i in range(3)), "default_link.bandwidth x2"]
    assert sorted(frame.index) == sorted(expected)

    def roomier(data: dict[str, Any]) -> None:
        data["devices"][1]["memory_budget"] *= 2

    def faster(data: dict[str, Any]) -> None:
        data["default_link"]["bandwidth_mbps"] *= 2

    for name, change in (("d1.memory x2", roomier), ("default_link.bandwidth x2", faster)):
        plan = solve(profile, by_hand(fleet, change), floored())
        assert today.plan is not None
        assert frame["gain_us"][name] == today.plan.latency_us - plan.latency_us


def test_storage_is_doubled_where_it_has_a_budget() -> None:
    """The candidate beside the memory's: here it holds both classes on one device, with less fusion."""
    gateway, near, _ = (
        d | {"engine": "c", "storage_overhead": 0, "memory_budget": 10**6} for d in pencil.fleet_data()["devices"]
    )
    link = pencil.fleet_data()["links"][:1]
    on = pencil.fleet(devices=[gateway | {"storage_budget": 3000}, near], links=link)
    frame = next_best(today_of(timed_in_c(pencil.profile()), on, floored(min_retention=0.9)), [])
    assert sorted(frame.index) == ["gateway.memory x2", "gateway.storage x2", "near.bandwidth x2", "near.memory x2"]
    assert frame["gain_us"].idxmax() == "gateway.storage x2"


def test_purchases_for_a_fleet_that_has_no_plan() -> None:
    """Purchases that make a plan possible come first, without a gain."""
    profile, fleet = fleet_of(2)
    starved = by_hand(fleet, lambda data: [d.update(memory_budget=d["runtime_overhead"] + 9) for d in data["devices"]])
    frame = next_best(today_of(profile, starved, floored()), ["esp32-s3"])
    assert frame.index[0] == "+ esp32-s3"
    assert frame["status"].tolist()[:2] == ["optimal", "impossible"]
    assert frame["gain_us"].isna().all()


def test_a_shared_medium_is_one_upgrade() -> None:
    """Doubling the bandwidth of a Wi-Fi with two devices is offered once, for both."""
    profile, fleet = fleet_of(2)
    wifi = {"bandwidth_mbps": 1.0, "latency_ms": 0.1, "shared": "wifi"}
    shared = fleet.replace(links=[{"between": ["d0", name], **wifi} for name in ("d1", "d2")], default_link=None)
    names = list(next_best(today_of(profile, shared, floored()), ["d1"]).index)
    assert [name for name in names if "bandwidth" in name] == ["d1.bandwidth x2"]


# --- what moves ---


def plan_with(plan: Plan, **classes: tuple[str, ...]) -> Plan:
    """Return a plan whose devices serve these classes with the first sub-model."""
    first = plan.assignments[0].model_dump()
    made = [first | {"device": name, "classes": served} for name, served in classes.items()]
    return Plan.model_validate(plan.model_dump() | {"assignments": made})


def test_moves_by_hand() -> None:
    """d0 keeps its classes, d1 gains "2" and loses "1", d2 becomes idle, d3 is new: two sub-models to send."""
    profile, fleet = instance(2)
    plan = solve(profile, fleet, floored())
    before = plan_with(plan, d0=("0",), d1=("0", "1"), d2=("3",))
    after = plan_with(plan, d0=("0",), d1=("0", "2"), d3=("1", "3"))
    a, width = plan.assignments[0], profile.widths[0]
    groups = (
        len(profile.channel_groups[l][g]) * width.channel_params[l] for l in (0, 1) for g in a.kept_channel_groups[l]
    )
    params = width.fixed_params + sum(width.head_params[l] * len(a.kept_heads[l]) for l in (0, 1)) + sum(groups)
    frame = diff_frame(before, after, profile)
    expected = pd.DataFrame(
        [("d1", ("2",), ("1",), 4 * params), ("d3", ("1", "3"), (), 4 * params), ("d2", (), ("3",), 0)],
        columns=["device", "gains", "loses", "bytes_to_send"],
    )
    pd.testing.assert_frame_equal(frame, expected.set_index("device"))
    assert plan_diff(before, after, profile) == PlanDiff(classes=3, bytes_to_send=8 * params, devices=3)
    assert plan_diff(before, before, profile) == PlanDiff(0, 0, 0)
