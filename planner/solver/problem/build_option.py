"""Options of an instance: costs in ticks and grains, needs in parts per billion."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from planner.arrays import Floats, Ints
from planner.errors import InputError
from planner.rules.cost import DeviceCost, WidthCost
from planner.rules.floors import RETENTION_TOLERANCE
from planner.solver.problem.cost_table import CostTable, UnitSet
from planner.solver.problem.instance import IMPORTANCE_SCALE, Units
from planner.solver.problem.option import Option

# Finer than this and the solver's sums would leave 64 bits.
_MAX_SCALE = 10**6
_MAX_SUM = 10**17


def build_option(
    group: int,
    width_cost: WidthCost,
    device: DeviceCost,
    count: int,
    need: Ints,
    use: Ints,
    energy_per_us: int,
    units: Units,
) -> Option:
    """Return a device group at one embed dim and precision.

    Args:
        group: Index of the group.
        width_cost: Costs at this embed dim and precision.
        device: Any device of the group.
        count: Number of devices.
        need: Importance that each class needs, (C, C).
        use: Use of each resource, (R,).
        energy_per_us: In the instance's units of energy.
        units: Heads and channel groups of the model.

    Raises:
        InputError: If the model's time or memory there is beyond 64 bits.
    """
    costs, always = _cost_table(width_cost, device, units), _always_bytes(width_cost, device, units)
    budgets = [device.memory_budget_bytes - device.runtime_overhead_bytes]
    if device.storage_budget_bytes is not None:
        budgets.append(device.storage_budget_bytes - device.storage_overhead_bytes)
    free = [
        math.floor((budget - num_bytes) * costs.grains_per_byte)
        for budget, num_bytes in zip(budgets, always, strict=True)
    ]
    return Option(
        group=group,
        width_cost=width_cost,
        device=device,
        count=count,
        costs=costs,
        # Clamped: beyond what all units need, more or less means the same.
        free_grains=np.clip(np.array(free, dtype=object), -_MAX_SUM, _MAX_SUM).astype(np.int64),
        need=need,
        alone_us=math.ceil(width_cost.send.alone_us) + math.ceil(width_cost.returned.alone_us),
        use=use,
        energy_per_us=energy_per_us,
    )


def _always_bytes(width_cost: WidthCost, device: DeviceCost, units: Units) -> list[Fraction]:
    """Return what every sub-model takes of each budget [bytes], beside the activations of units, (M,)."""
    weights, activations = width_cost.memory.weights, width_cost.memory.activations
    kept = weights.fixed + sum(weights.head[l] for l in units.block[list(units.always_kept)].tolist())
    return [activations.fixed + kept] if device.storage_budget_bytes is None else [activations.fixed, Fraction(kept)]


def _cost_table(width_cost: WidthCost, device: DeviceCost, units: Units) -> CostTable:
    """Return the formulas of `rules.cost` for one embed dim and precision, in ticks and grains.

    The time and the weights of the anchor head, and the charge of its set, are fixed: its own are 0. Its activations
    are counted in its set, with those of the other kept heads. Activations that any attention needs are its own, in a
    set that it has for itself.
    """
    time, weights, activations = width_cost.time, width_cost.memory.weights, width_cost.memory.activations
    ticks = common_scale([time.fixed, time.attention, time.mlp, *time.head, *time.channel], _MAX_SCALE)
    peaks = activations.least, activations.head, activations.channel
    grains = common_scale([activations.fixed, *peaks], _MAX_SCALE)
    least_grains, head_grains, channel_grains = (scaled_up(peak, grains) for peak in peaks)
    rows = list(zip(units.block.tolist(), units.is_head.tolist(), units.size.tolist(), strict=True))
    anchored = [rows[u][0] for u in units.always_kept]
    # Units alike take the same time.
    ticks_of = lru_cache(maxsize=None)(
        lambda l, is_head, size: scaled_up((time.head if is_head else time.channel)[l] * size, ticks)
    )
    unit_ticks = [0 if u in units.always_kept else ticks_of(*row) for u, row in enumerate(rows)]
    unit_grains = [
        0 if u in units.always_kept else (weights.head if is_head else weights.channel)[l] * size * grains
        for u, (l, is_head, size) in enumerate(rows)
    ]
    fixed = time.fixed + sum(time.attention + time.head[l] for l in anchored)
    around = fixed + units.depth * (time.attention + time.mlp) + width_cost.send.alone_us + width_cost.returned.alone_us
    _refuse_if_too_large(sum(unit_ticks) + scaled_up(around, ticks), device)
    always = sum(_always_bytes(width_cost, device, units), Fraction(0))
    _refuse_if_too_large(sum(unit_grains) + scaled_up(always, grains), device)
    of_weights = np.array(unit_grains, dtype=np.int64)
    return CostTable(
        ticks_per_us=ticks,
        fixed_ticks=scaled_up(fixed, ticks),
        unit_ticks=np.array(unit_ticks, dtype=np.int64),
        grains_per_byte=grains,
        # Weights take the last budget: the storage, where there is one.
        unit_grains=np.array([of_weights] if device.storage_budget_bytes is None else [0 * of_weights, of_weights]),
        unit_sets=(
            *_unit_sets(units, True, scaled_up(time.attention, ticks), head_grains, device),
            *_unit_sets(units, False, scaled_up(time.mlp, ticks), channel_grains, device),
            *(UnitSet(np.array([u]), 0, np.array([least_grains])) for u in units.always_kept if least_grains),
        ),
    )


def _unit_sets(
    units: Units, is_head: bool, charge_ticks: int, peak_grains: int, device: DeviceCost
) -> Iterator[UnitSet]:
    """Yield the attention or the MLP half of each block; what is always kept has its charge among the fixed ticks."""
    for l in range(units.depth):
        members = np.flatnonzero((units.block == l) & (units.is_head == is_head))
        peaks = [peak_grains * size for size in units.size[members].tolist()]
        _refuse_if_too_large(sum(peaks), device)
        is_charged = not set(units.always_kept).intersection(members.tolist())
        yield UnitSet(members, charge_ticks * is_charged, np.array(peaks, dtype=np.int64))


def _refuse_if_too_large(total: int, device: DeviceCost) -> None:
    if total > _MAX_SUM:
        raise InputError(
            f"device {device.name!r}: the whole model's time and memory there must be below {_MAX_SUM:.0e} "
            "of the solver's units to be planned with; look for a number that is absurdly large or small."
        )


def needs_of(share: Sequence[float], floors: Floats) -> Ints:
    """Return the importance that each class needs at floors, (C, C); more than there is where it cannot be reached.

    Args:
        share: Share of each class's importance that embed dim and precision leave at best.
        floors: Retention floor of each class, (C,).
    """
    # Half of the tolerance of the check: what is accepted here is accepted there.
    least = floors - RETENTION_TOLERANCE / 2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shares = np.minimum(2.0, np.where(least > 0, least / np.array(share), 0.0))
    needs: Ints = np.ceil(shares * IMPORTANCE_SCALE).astype(np.int64)
    return np.repeat(needs[:, None], len(needs), axis=1)


def common_scale(numbers: Sequence[Fraction], max_scale: int) -> int:
    """Return the factor that makes all numbers whole, at most `max_scale`."""
    return min(max_scale, math.lcm(*(number.denominator for number in numbers)))


def scaled_up(number: Fraction, scale: int) -> int:
    """Return a number in units of 1 / scale, rounded up."""
    return math.ceil(number * scale)
