"""Construction of instances: groups of devices that differ in name only, and the rules of survival."""

import dataclasses
import itertools
import math
from unittest.mock import Mock

import pytest

from planner.rules.cost import device_costs
from planner.rules.demands import demands_of
from planner.rules.memory import memory_model
from planner.schema import Goal
from planner.solver.problem.build import at_floors, build_instance
from tests.helpers.accuracy import predictable
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.varied_instances import VARIED, varied, varied_instance


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_groups_are_the_devices_that_differ_in_name_only(first: int) -> None:
    """Two devices share a group exactly where costs and demands are equal and, to survive losses, none is a relay."""
    alike = 0
    for seed in VARIED[first : first + 20]:
        instance, goal = varied_instance(seed), varied(seed)[2]
        demands = demands_of(instance.profile, instance.fleet, goal)
        costs = {d.name: d for d in device_costs(instance.profile, instance.fleet) if d.name not in demands.left_out}
        group_of = {name: g for g, group in enumerate(instance.groups) for name in group.names}
        if demands.left_out & demands.pinned.keys():
            assert instance.groups == ()
            continue
        assert sorted(group_of) == sorted(costs)
        relays = frozenset().union(*(d.relays for d in costs.values())) if goal.survive else frozenset()
        for a, b in itertools.combinations(costs, 2):
            same = dataclasses.replace(costs[a], name="") == dataclasses.replace(costs[b], name="")
            same &= all(of.get(a) == of.get(b) for of in (demands.pinned, demands.forbidden))
            same &= not relays & {a, b}
            assert (group_of[a] == group_of[b]) == same, (seed, a, b)
            alike += same
    assert alike >= 2


def test_every_width_and_precision_of_a_group_is_an_option() -> None:
    """Options are those of each device of the group, in order, with its count and budget."""
    for seed in VARIED[:30]:
        instance = varied_instance(seed)
        by_name = {d.name: d for d in device_costs(instance.profile, instance.fleet)}
        found = [(o.group, o.width_cost, o.count, o.device.memory_budget_bytes) for o in instance.options]
        assert found == [
            (g, at, len(group.names), by_name[name].memory_budget_bytes)
            for g, group in enumerate(instance.groups)
            for name in group.names[:1]
            for at in by_name[name].widths
        ]


def test_other_floors_are_another_instance() -> None:
    """At the floors of another mean class, all but the needs is shared, and they are those of an instance made anew."""
    model = predictable(random_profile(3, num_classes=4), 3)
    on, goal = random_fleet(model, 3, num_devices=4), Goal(max_accuracy_drop=0.02)
    low, high = (build_instance(model, on, goal, floor) for floor in (0.3, 0.7))
    raised = at_floors(low, 0.7)
    assert raised.retention_floor == 0.7
    assert raised.floors.tolist() == high.floors.tolist() != low.floors.tolist()
    for before, new, anew in zip(low.options, raised.options, high.options, strict=True):
        assert new.need.tolist() == anew.need.tolist()
        assert new.costs is before.costs
        assert (new.group, new.width_cost, new.count) == (anew.group, anew.width_cost, anew.count)


def test_thousands_of_devices_are_as_many_groups_as_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count of 3,000 behind one link is costed once and grouped with its twin; by other ways they are other makes."""
    counted = Mock(wraps=memory_model)
    monkeypatch.setattr("planner.rules.cost.memory_model", counted)
    gateway, near, _ = fleet_data()["devices"]
    many = near | {"count": 3000}
    links = [{"between": ["gateway", "near"], "bandwidth_mbps": 8, "latency_ms": 1}]
    twin = [near | {"name": "twin"}]
    in_fleet = fleet(devices=[gateway, many, *twin], links=[*links, links[0] | {"between": ["gateway", "twin"]}])
    instance = build_instance(profile(), in_fleet, Goal(min_retention=0.0))
    assert [len(group.names) for group in instance.groups] == [1, 3001]
    assert counted.call_count <= 3 * len(profile().widths)
    # A faster link to near-7, and a relay before near-8.
    faster = [links[0] | {"between": ["gateway", "near-7"], "bandwidth_mbps": 80}]
    relayed = [{"between": ["near-7", "near-8"], "bandwidth_mbps": 80, "latency_ms": 0}]
    in_fleet = fleet(devices=[gateway, many], links=[*links, *faster, *relayed])
    names = [group.names for group in build_instance(profile(), in_fleet, Goal(min_retention=0.0)).groups]
    assert sorted(map(len, names)) == [1, 1, 1, 2998]
    assert {("near-7",), ("near-8",)} < set(names)


def test_survival_rules_by_hand() -> None:
    """`near` relays for `far`: with one loss, two devices a class, or one beside the two that are lost with `near`."""
    instance = build_instance(profile(), fleet(), Goal(survive=1, min_retention=0.0))
    names = [group.names for group in instance.groups]
    assert names == [("gateway",), ("near",), ("far",)]
    rules = {rule.groups: rule.min_devices for rule in instance.survival_rules}
    assert rules == {frozenset({0, 1, 2}): 2, frozenset({0}): 1}
    single = build_instance(profile(), fleet(), Goal(min_retention=0.0))
    assert [(rule.min_devices, rule.groups) for rule in single.survival_rules] == [(1, frozenset({0, 1, 2}))]


def test_a_relay_is_like_no_other_device_where_losses_must_be_survived() -> None:
    """`near` and its twin are one group, until it matters that only `near` relays for `far`."""
    near, link = fleet_data()["devices"][1], fleet_data()["links"][0]
    devices = [*fleet_data()["devices"], near | {"name": "twin"}]
    on = fleet(devices=devices, links=[*fleet_data()["links"], link | {"between": ["gateway", "twin"]}])
    goals = (Goal(min_retention=0.0), Goal(min_retention=0.0, survive=1))
    without, surviving = ({g.names for g in build_instance(profile(), on, goal).groups} for goal in goals)
    assert without == {("gateway",), ("near", "twin"), ("far",)}
    assert surviving == {("gateway",), ("near",), ("twin",), ("far",)}


def test_energy_is_scaled_to_whole_numbers() -> None:
    """2.5 W and 1 W are whole in halves of a microjoule per microsecond; the limit is rounded down."""
    devices = [d | {"active_power_w": power} for d, power in zip(fleet_data()["devices"], (1.0, 2.5, 1.0), strict=True)]
    goal = floored(objective="energy", max_latency_ms=9.0, max_energy_mj=0.0017)
    instance = build_instance(profile(), fleet(devices=devices), goal)
    assert instance.energy_scale == 2
    assert {o.device.name: o.energy_per_us for o in instance.options} == {"gateway": 2, "near": 5, "far": 2}
    assert instance.max_energy == math.floor(2 * 1.7)


def test_what_is_pinned_to_a_device_left_out_can_be_nowhere() -> None:
    """Then no device is left to plan with."""
    instance = build_instance(profile(), fleet(), floored(pin={"a": ("far",)}, leave_out=("far",)))
    assert (instance.groups, instance.options) == ((), ())
