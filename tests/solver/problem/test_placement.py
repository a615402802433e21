"""Placements: least moves between devices of a group, against every permutation; plans and placements round trip."""

import itertools

import numpy as np
import pytest

from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal
from planner.solver import solve
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import by_device, is_plan, is_valid, move_cost, placement_of_plan
from tests.helpers.goals import floored
from tests.helpers.placements import random_placement
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import changed
from tests.helpers.varied_instances import VARIED, feasible_seeds, varied


def twins(seed: int) -> Instance:
    """Return 4 classes on a gateway, 4 boards and 2 cameras."""
    profile = random_profile(seed)
    first, second = random_fleet(profile, seed, num_devices=2).model_dump(mode="json")["devices"]
    gateway = first | {"name": "gateway"}
    devices = [gateway, first | {"name": "board", "count": 4, "macs_per_second": 5e6}]
    devices.append(second | {"name": "camera", "count": 2, "macs_per_second": 3e6, "kind": None})
    link = {"bandwidth_mbps": 10.0, "latency_ms": 0.1}
    fleet = Fleet.model_validate({"aggregator": "gateway", "devices": devices, "default_link": link})
    return build_instance(profile, fleet, floored())


def moves(after: dict[str, PlacedSubModel], before: dict[str, PlacedSubModel]) -> int:
    """Return the cost of all moves: twice the classes new to a device, plus one for each changed sub-model."""
    cost = 0
    for name, p in after.items():
        old = before.get(name)
        cost += 2 * len(set(p.classes) - set(old.classes if old else ()))
        cost += old is None or (old.classes, old.kept) != (p.classes, p.kept)
    return cost


@pytest.mark.parametrize("seed", range(20))
def test_devices_are_chosen_with_the_least_moves(seed: int) -> None:
    """Among all permutations within the groups, none moves less; the sub-models are the same."""
    instance, rng = twins(seed), np.random.default_rng(seed)
    assert [len(group.names) for group in instance.groups] == [1, 4, 2]
    earlier, placed = random_placement(instance, rng), list(random_placement(instance, rng).values())
    if seed % 2:
        # Some sub-models stay, on whatever device.
        placed = [p if rng.random() < 0.5 else earlier.get(name, p) for name, p in zip(earlier, placed, strict=False)]
        placed = placed or list(earlier.values())
        placed = [p for g, group in enumerate(instance.groups) for p in placed_in(placed, g)[: len(group.names)]]
    chosen = by_device(instance, placed, earlier)
    assert sorted(chosen.values(), key=id) == sorted(placed, key=id)
    for g, group in enumerate(instance.groups):
        here = placed_in(placed, g)
        costs = [
            moves(dict(zip(names, here, strict=True)), earlier)
            for names in itertools.permutations(group.names, len(here))
        ]
        assert {name for name, p in chosen.items() if p.option.group == g} <= set(group.names)
        assert moves({name: p for name, p in chosen.items() if p.option.group == g}, earlier) == min(costs)


def placed_in(placed: list[PlacedSubModel], group: int) -> list[PlacedSubModel]:
    """Return the sub-models on a group."""
    return [p for p in placed if p.option.group == group]


def test_the_cost_of_a_move_by_hand() -> None:
    """Classes that a device has already are free; kept units count only where they are known."""
    option = twins(0).options[0]
    before = PlacedSubModel(option, (0, 1), (2, 3))
    assert move_cost((0, 1), (2, 3), before) == 0
    assert move_cost((0, 1), None, before) == 0
    assert move_cost((0, 1), (2,), before) == 1
    assert move_cost((0,), None, before) == 1
    assert move_cost((0, 2, 3), (2, 3), before) == 2 * 2 + 1
    assert move_cost((0, 2, 3), (2, 3), None) == 2 * 3 + 1


@pytest.mark.parametrize("seed", feasible_seeds()[:12])
def test_plans_and_placements_round_trip(seed: int) -> None:
    """The placement of a plan names its classes, widths and units, and is a plan."""
    profile, fleet, goal = varied(seed)
    plan, instance = solve(profile, fleet, goal), build_instance(profile, fleet, goal)
    found = placement_of_plan(instance, plan)
    assert list(found) == [a.device for a in plan.assignments]
    for a, p in zip(plan.assignments, found.values(), strict=True):
        assert tuple(profile.classes[c] for c in p.classes) == a.classes
        assert (p.option.embed_dim, p.option.width_cost.precision) == (a.embed_dim, a.precision)
        assert instance.units.blocks(p.kept, heads=True) == a.kept_heads
        assert instance.units.blocks(p.kept, heads=False) == a.kept_channel_groups
        assert is_valid(instance, p)
    assert is_plan(instance, list(found.values()))


def test_what_a_fleet_no_longer_has_is_left_out() -> None:
    """Devices and classes that are gone are dropped from an earlier plan, and the rest is kept."""
    seed = next(seed for seed in VARIED if seed % 4 == 3 and two_devices(seed))
    profile, fleet, _ = varied(seed)
    plan = solve(profile, fleet, Goal(min_retention=0.1, survive=1))
    gone, *stay = [a.device for a in plan.assignments]
    instance = build_instance(profile, fleet, floored(leave_out=(gone,)))
    assert list(placement_of_plan(instance, plan)) == stay
    renamed = changed(profile, classes=["renamed", *profile.classes[1:]])
    instance = build_instance(renamed, fleet, floored())
    for p in placement_of_plan(instance, plan).values():
        assert 0 not in p.classes


def two_devices(seed: int) -> bool:
    """Return whether `varied` has a plan that survives the loss of a device."""
    try:
        return len(solve(*varied(seed)[:2], Goal(min_retention=0.1, survive=1)).assignments) > 1
    except InfeasibleError:
        return False
