"""Construction of an instance: names become indices, numbers become whole."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from planner.arrays import Ints
from planner.errors import InputError
from planner.rules import cost, links
from planner.rules.anchor_head import anchor_head
from planner.rules.cost import DeviceCost, WidthCost, equal_devices
from planner.rules.demands import Demands, demands_of, is_dependent, relay_sets
from planner.rules.floors import floors_of
from planner.schema import Fleet, Goal, Profile
from planner.solver.problem.build_option import build_option, common_scale, needs_of, scaled_up
from planner.solver.problem.instance import IMPORTANCE_SCALE, DeviceGroup, Instance, SurvivalRule, Units

# Nanojoules: plans state energy to these.
_MAX_ENERGY_SCALE = 1000


def build_instance(profile: Profile, fleet: Fleet, goal: Goal, retention_floor: float | None = None) -> Instance:
    """Return the instance of a profile, a fleet and a goal.

    Args:
        profile: Measurements of the model.
        fleet: Devices and links.
        goal: Objective, limits and demands.
        retention_floor: Floor of a mean class, from which those of all classes follow, where the goal gives no floor.

    Raises:
        InputError: If the profile, the fleet and the goal do not go together.
    """
    floors = floors_of(profile, goal, retention_floor)
    demands, units = demands_of(profile, fleet, goal), _units(profile)
    alike = _alike(profile, fleet, demands)
    groups, costs = _groups(profile, fleet, goal, demands, alike)
    relays = {name: of.relays for of, names in alike.items() for name in names} if goal.survive else {}
    powers = _powers(goal, groups, costs)
    scale = common_scale(powers, _MAX_ENERGY_SCALE)
    us_per_byte = links.media_us_per_byte(fleet)
    limit_uj = goal.max_energy_uj
    needs = lru_cache(maxsize=None)(lambda share: needs_of(share, floors))
    options = [
        build_option(
            g,
            at,
            dataclasses.replace(device, name=groups[g].names[0]),
            len(groups[g].names),
            needs(at.max_retention),
            _uses(at, len(us_per_byte)),
            scaled_up(powers[g], scale),
            units,
        )
        for g, device in enumerate(costs)
        for at in device.widths
    ]
    return Instance(
        profile=profile,
        fleet=fleet,
        goal=goal,
        floors=floors,
        retention_floor=retention_floor,
        units=units,
        groups=tuple(groups),
        options=tuple(options),
        aggregator_rate=cost.aggregator_rate(fleet),
        us_per_byte=us_per_byte,
        survival_rules=_survival_rules(groups, relays, goal.survive),
        together=tuple(_indices(profile, names) for names in demands.together),
        apart=tuple(_indices(profile, names) for names in demands.apart),
        energy_scale=scale,
        max_energy=None if limit_uj is None else math.floor(limit_uj * scale),
    )


def at_floors(instance: Instance, retention_floor: float) -> Instance:
    """Return the same instance at other floors: those that follow from the floor of a mean class."""
    floors = floors_of(instance.profile, instance.goal, retention_floor)
    needs = lru_cache(maxsize=None)(lambda share: needs_of(share, floors))
    options = (dataclasses.replace(o, need=needs(o.width_cost.max_retention)) for o in instance.options)
    return dataclasses.replace(instance, floors=floors, retention_floor=retention_floor, options=tuple(options))


def _alike(profile: Profile, fleet: Fleet, demands: Demands) -> dict[DeviceCost, list[str]]:
    """Return the names of devices of the same costs, by these, without the ones that are left out."""
    found = {
        costs: [n for n in names if n not in demands.left_out] for costs, names in equal_devices(profile, fleet).items()
    }
    # What is pinned to a device that is left out can be nowhere.
    possible = not demands.left_out & demands.pinned.keys()
    return {costs: names for costs, names in found.items() if names and possible}


def _groups(
    profile: Profile, fleet: Fleet, goal: Goal, demands: Demands, alike: Mapping[DeviceCost, Sequence[str]]
) -> tuple[list[DeviceGroup], list[DeviceCost]]:
    """Return the groups of devices that neither costs nor demands tell apart, and the costs of each.

    They are in the order of the fleet.
    """
    # If losses must be survived, it matters who is reached over whom: a relay is like no other device.
    relays = frozenset[str]().union(*(costs.relays for costs in alike)) if goal.survive else frozenset[str]()
    found: list[tuple[DeviceGroup, DeviceCost]] = []
    for costs, names in alike.items():
        by_demands: dict[DeviceGroup, list[str]] = {}
        for name in names:
            demanded = DeviceGroup((name,) if name in relays else (), *_placements(profile, demands, name))
            by_demands.setdefault(demanded, []).append(name)
        found += [(dataclasses.replace(group, names=tuple(names)), costs) for group, names in by_demands.items()]
    order = {member.name: i for i, member in enumerate(fleet.members)}
    found.sort(key=lambda pair: order[pair[0].names[0]])
    return [group for group, _ in found], [costs for _, costs in found]


def _placements(profile: Profile, demands: Demands, device: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return the classes pinned to a device, and those forbidden there."""
    none: frozenset[str] = frozenset()
    return (
        _indices(profile, demands.pinned.get(device, none)),
        _indices(profile, demands.forbidden.get(device, none)),
    )


def _indices(profile: Profile, names: Iterable[str]) -> frozenset[int]:
    return frozenset(profile.classes.index(name) for name in names)


def _survival_rules(
    groups: Sequence[DeviceGroup], relays: dict[str, frozenset[str]], survive: int
) -> tuple[SurvivalRule, ...]:
    rules: dict[frozenset[int], int] = {}
    for lost in relay_sets(relays, survive) if survive else [()]:
        left = frozenset(g for g, group in enumerate(groups) if not is_dependent(group.names[0], relays, lost))
        rules[left] = max(rules.get(left, 0), survive + 1 - len(lost))
    return tuple(SurvivalRule(num, left) for left, num in rules.items())


def _powers(goal: Goal, groups: Sequence[DeviceGroup], costs: Sequence[DeviceCost]) -> list[Fraction]:
    """Return the power [W] of a device of each group, 0 where the goal does not concern energy."""
    if goal.objective != "energy" and goal.max_energy_mj is None:
        return [Fraction(0)] * len(groups)
    for group, device in zip(groups, costs, strict=True):
        if device.active_power_w is None:
            raise InputError(
                f"device {group.names[0]!r}: active_power_w must be known to plan with energy, got none; "
                "give it one, or leave the device out."
            )
    return [links.rational(device.active_power_w or 0) for device in costs]


def _uses(at: WidthCost, num_media: int) -> Ints:
    sends, returns = links.medium_loads([at.send], num_media), links.medium_loads([at.returned], num_media)
    return np.array([1, at.width.embed_dim, *sends, *returns], dtype=np.int64)


def _units(profile: Profile) -> Units:
    importance = profile.importance
    rows: list[tuple[int, bool, int, int]] = []
    columns: list[list[float]] = []
    for l, sizes in enumerate(profile.group_sizes):
        for h in range(profile.num_heads):
            rows.append((l, True, h, 1))
            columns.append([heads[l][h] for heads in importance.heads])
        for g, size in enumerate(sizes):
            rows.append((l, False, g, size))
            columns.append([groups[l][g] for groups in importance.channel_groups])
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    anchor = (profile.depth - 1, True, anchor_head(profile))
    shares = np.array(columns, dtype=np.float64).reshape(-1, len(profile.classes))
    return Units(
        block=table[:, 0],
        is_head=table[:, 1].astype(bool),
        index=table[:, 2],
        size=table[:, 3],
        importance=np.rint(shares.T * IMPORTANCE_SCALE).astype(np.int64),
        depth=profile.depth,
        always_kept=tuple(u for u, row in enumerate(rows) if row[:3] == anchor),
    )
