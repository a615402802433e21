"""Profile + fleet + goal -> instance: names become indices, numbers become integers."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from planner.arrays import Ints
from planner.errors import InputError
from planner.rules import cost, links
from planner.rules.cost import DeviceCost, WidthCost
from planner.rules.demands import Demands, demands_of, dependent, relay_sets
from planner.rules.floors import RETENTION_TOLERANCE, Floors, floors_of
from planner.schema import BYTES_PER_PARAM, Fleet, Goal, Profile
from planner.solver.problem.instance import IMPORTANCE_SCALE, DeviceGroup, Instance, Option, SurvivalRule, Units

# Finer than this and the solver's sums would leave 64 bits.
_MAX_TICKS = 10**6
_LARGEST_SUM = 10**17
# A retention that is below a whole number of parts per million by no more is that number when rounded.
_ROUNDED_AWAY = 0.499e-6
# Nanojoules: plans state energy to these.
_MAX_ENERGY_SCALE = 1000


def build_instance(profile: Profile, fleet: Fleet, goal: Goal, least_retention: float = 0.0) -> Instance:
    """Make an instance.

    Args:
        profile: What was measured of the model.
        fleet: The devices and their links.
        goal: What the plan must hold.
        least_retention: Raises every floor to at least this.

    Raises:
        InputError: If the profile, the fleet and the goal do not go together.
    """
    floor, demands, units = floors_of(profile, goal), demands_of(profile, fleet, goal), _units(profile)
    devices = [d for d in cost.device_costs(profile, fleet) if d.name not in demands.left_out]
    if demands.left_out & demands.pinned.keys():
        # What is pinned to a device that is left out can be nowhere.
        devices = []
    relays = {device.name: device.relays for device in devices}
    by_kind: dict[tuple[DeviceCost, DeviceGroup], list[str]] = {}
    for device in devices:
        # With survivors, it matters who is reached over whom: a relay is like no other device.
        is_relay = goal.survive > 0 and any(device.name in names for names in relays.values())
        alike = DeviceGroup((device.name,) if is_relay else (), *_placements(profile, demands, device.name))
        by_kind.setdefault((dataclasses.replace(device, name=""), alike), []).append(device.name)
    groups = [dataclasses.replace(alike, names=tuple(names)) for (_, alike), names in by_kind.items()]
    powers = _powers(goal, devices)
    scale = min(_MAX_ENERGY_SCALE, _common_scale(list(powers.values())))
    us_per_byte = links.media(fleet)
    limit_uj = goal.max_energy_uj
    needs = lru_cache(maxsize=None)(lambda share: _needs(share, floor, least_retention))
    options = [
        _option(
            g,
            at,
            dataclasses.replace(device, name=groups[g].names[0]),
            len(groups[g].names),
            needs(at.share),
            _uses(at, len(us_per_byte)),
            _scaled_up(powers.get(groups[g].names[0], Fraction(0)), scale),
            units,
        )
        for g, (device, _) in enumerate(by_kind)
        for at in device.widths
    ]
    return Instance(
        profile=profile,
        fleet=fleet,
        goal=goal,
        floor=floor,
        units=units,
        groups=tuple(groups),
        options=tuple(options),
        aggregator_rate=cost.aggregator_rate(fleet),
        us_per_byte=us_per_byte,
        survivors=_survivors(groups, relays, goal.survive),
        together=tuple(_indices(profile, names) for names in demands.together),
        apart=tuple(_indices(profile, names) for names in demands.apart),
        energy_scale=scale,
        max_energy=None if limit_uj is None else math.floor(limit_uj * scale),
    )


def _placements(profile: Profile, demands: Demands, device: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return the classes that a device must and must never serve."""
    none: frozenset[str] = frozenset()
    return (
        _indices(profile, demands.pinned.get(device, none)),
        _indices(profile, demands.forbidden.get(device, none)),
    )


def _indices(profile: Profile, names: Iterable[str]) -> frozenset[int]:
    return frozenset(profile.classes.index(name) for name in names)


def _survivors(
    groups: Sequence[DeviceGroup], relays: dict[str, frozenset[str]], survive: int
) -> tuple[SurvivalRule, ...]:
    rules: dict[frozenset[int], int] = {}
    for lost in relay_sets(relays, survive) if survive else [()]:
        left = frozenset(g for g, group in enumerate(groups) if not dependent(group.names[0], relays, lost))
        rules[left] = max(rules.get(left, 0), survive + 1 - len(lost))
    return tuple(SurvivalRule(least, left) for left, least in rules.items())


def _powers(goal: Goal, devices: Sequence[DeviceCost]) -> dict[str, Fraction]:
    """Return the power [W] of each device, where the goal has to do with energy."""
    if goal.objective != "energy" and goal.max_energy_mj is None:
        return {}
    for device in devices:
        if device.active_power_w is None:
            raise InputError(
                f"device {device.name!r}: active_power_w must be known to plan with energy, got none; "
                "give it one, or leave the device out."
            )
    return {device.name: links.rational(device.active_power_w or 0) for device in devices}


def _uses(at: WidthCost, num_media: int) -> Ints:
    sends, returns = links.loads([at.send], num_media), links.loads([at.returned], num_media)
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
    shares = np.array(columns, dtype=np.float64).reshape(-1, len(profile.classes))
    return Units(
        block=table[:, 0],
        is_head=table[:, 1].astype(bool),
        index=table[:, 2],
        size=table[:, 3],
        importance=np.rint(shares.T * IMPORTANCE_SCALE).astype(np.int64),
        depth=profile.depth,
    )


def _option(
    group: int,
    at: WidthCost,
    device: DeviceCost,
    count: int,
    need: Ints,
    use: Ints,
    energy_per_us: int,
    units: Units,
) -> Option:
    time, width, bytes_per_param = at.time, at.width, BYTES_PER_PARAM[at.precision]
    ticks = _common_scale([time.fixed, time.attention, time.mlp, *time.head, *time.channel])
    # Units alike take the same time.
    ticks_of = lru_cache(maxsize=None)(
        lambda l, is_head, size: _scaled_up((time.head if is_head else time.channel)[l] * size, ticks)
    )
    unit_ticks = [ticks_of(*row) for row in _rows(units)]
    per_head = links.rational(width.head_activation_bytes)
    per_channel = links.rational(width.channel_activation_bytes)
    fixed = links.rational(width.fixed_activation_bytes)
    grains = _common_scale([per_head, per_channel, fixed])
    unit_grains = [
        (width.head_params if is_head else width.channel_params)[l] * size * bytes_per_param * grains
        for l, is_head, size in _rows(units)
    ]
    switches = units.depth * (time.attention + time.mlp)
    around = time.fixed + switches + at.send.alone_us + at.returned.alone_us
    _refuse_if_too_large(sum(unit_ticks) + _scaled_up(around, ticks), device)
    always = width.fixed_params * bytes_per_param + fixed
    _refuse_if_too_large(sum(unit_grains) + _scaled_up(always, grains), device)
    available = device.memory_budget_bytes - device.runtime_overhead_bytes
    free = available - always
    return Option(
        group=group,
        at=at,
        device=device,
        count=count,
        ticks_per_us=ticks,
        unit_ticks=np.array(unit_ticks, dtype=np.int64),
        fixed_ticks=_scaled_up(time.fixed, ticks),
        attention_ticks=_scaled_up(time.attention, ticks),
        mlp_ticks=_scaled_up(time.mlp, ticks),
        grains_per_byte=grains,
        unit_grains=np.array(unit_grains, dtype=np.int64),
        head_grains=_scaled_up(per_head, grains),
        channel_grains=_scaled_up(per_channel, grains),
        # Clamped: beyond what all units need, more or less means the same.
        free_grains=max(-_LARGEST_SUM, min(math.floor(free * grains), _LARGEST_SUM)),
        need=need,
        alone_us=math.ceil(at.send.alone_us) + math.ceil(at.returned.alone_us),
        use=use,
        energy_per_us=energy_per_us,
    )


def _refuse_if_too_large(total: int, device: DeviceCost) -> None:
    if total > _LARGEST_SUM:
        raise InputError(
            f"device {device.name!r}: the whole model's time and memory there must be below {_LARGEST_SUM:.0e} "
            "of the solver's units to be planned with; look for a number that is absurdly large or small."
        )


def _rows(units: Units) -> Iterable[tuple[int, bool, int]]:
    return zip(units.block.tolist(), units.is_head.tolist(), units.size.tolist(), strict=True)


def _needs(share: Sequence[float], floor: Floors, least_retention: float) -> Ints:
    """Return the importance each class needs, (C, C); more than there is where a width cannot reach it."""
    by_count = np.array(floor.by_count)[None, :] * np.array(floor.class_need)[:, None]
    # Half of the tolerance of the check: what is accepted here is accepted there.
    least = np.minimum(1.0, by_count) - RETENTION_TOLERANCE / 2
    # What is accepted is not less when stated in parts per million.
    least = np.maximum(least, least_retention - _ROUNDED_AWAY)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.minimum(2.0, np.where(least > 0, least / np.array(share)[:, None], 0.0))
    needs: Ints = np.ceil(shares * IMPORTANCE_SCALE).astype(np.int64)
    return needs


def _common_scale(numbers: Sequence[Fraction]) -> int:
    return min(_MAX_TICKS, math.lcm(*(number.denominator for number in numbers)))


def _scaled_up(number: Fraction, scale: int) -> int:
    return math.ceil(number * scale)
