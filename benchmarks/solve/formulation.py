"""Formulation of the whole problem as one integer linear program.

Minimal latency, one width and precision for each device, no shared media, no demands besides floors.

Sets: devices d, classes c, units u (heads and channel groups) in half-blocks h.

Parameters: importance I_cu and need r_c [parts per billion]; for each device the times t_u of units, s_h of a half-
block that keeps any, f of the fixed part, p of the path (in ticks, `ticks` to the microsecond), weights w_u and
activations a_u of units, and the free bytes M (in grains, the largest unit of which all sizes are multiples).

Variables
    x_dc   d serves c                       binary
    y_du   u is kept on d                   binary
    i_d    d is idle                        binary
    A_d    peak activations [grains]        integer
    q_dh   h keeps a unit on d              binary, where s_h > 0
    T, F   slowest device, fusion [us]      integer

Constraints
    (1) sum_d x_dc >= 1                                                    for each c
    (2) x_dc <= 1 - i_d,  sum_c x_dc >= 1 - i_d                            for each d, c
    (3) sum_u I_cu y_du >= r_c x_dc                                        for each d, c
    (4) sum_u w_u y_du + A_d <= M_d,  A_d >= sum_{u of h} a_u y_du         for each d, h
    (5) q_dh >= y_du                                                       for u of h
    (6) ticks T >= (p + f) (1 - i_d) + sum_u t_u y_du + sum_h s_h q_dh     for each d
    (7) F >= time to fuse the features of sum_d (1 - i_d) devices
    (8) y_da >= 1 - i_d                                                    for each d, a the anchor head

Objective: minimise T + F
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from benchmarks.solve.linear import LinearModel
from planner.rules import cost
from planner.rules.anchor_head import anchor_head
from planner.rules.cost import DeviceCost
from planner.rules.floors import RETENTION_TOLERANCE, floors_of
from planner.rules.links import rational
from planner.schema import BYTES_PER_PARAM, Fleet, Goal, Profile

_IMPORTANCE_SCALE = 10**9
# Finer times are rounded up to a millionth of a microsecond.
_MAX_TICKS = 10**6


class Formulation:
    """Integer program of a profile, a fleet and a goal; `x` and `y` are its variables, for each of `devices`."""

    def __init__(self, profile: Profile, fleet: Fleet, goal: Goal) -> None:
        self.profile, self.fleet, self.goal = profile, fleet, goal
        halves = [(l, is_head) for l in range(profile.depth) for is_head in (True, False)]
        counts = [profile.num_heads if is_head else len(profile.channel_groups[l]) for l, is_head in halves]
        # Each unit is (block, whether it is a head, index within the block).
        self.units = [(*half, i) for half, count in zip(halves, counts, strict=True) for i in range(count)]
        self.halves = [(half, [u for u, unit in enumerate(self.units) if unit[:2] == half]) for half in halves]
        self.sizes = [1 if is_head else profile.group_sizes[l][i] for l, is_head, i in self.units]
        parts = profile.importance
        shares = [[c[l][i] for c in (parts.heads if is_head else parts.channel_groups)] for l, is_head, i in self.units]
        table = np.array(shares).reshape(len(self.units), len(profile.classes))
        self.importance: list[list[int]] = np.rint(table.T * _IMPORTANCE_SCALE).astype(int).tolist()  # (C, U)
        costs = cost.device_costs(profile, fleet)
        if any(len(device.widths) > 1 for device in costs):
            raise ValueError("devices must have one width and one precision each, got more")
        # Other devices can only be idle.
        self.devices = [device for device in costs if device.widths and _free_bytes(device) >= 0]
        self.x: list[list[int]] = []
        self.y: list[list[int]] = []

    @property
    def nonzeros(self) -> int:
        """Approximate number of coefficients of the model: (3) has nearly all of them."""
        C, U = len(self.profile.classes), len(self.units)
        return len(self.devices) * (C * (U + 5) + 5 * U)

    def build(self) -> LinearModel:
        """Return the whole model."""
        model = LinearModel()
        C = len(self.profile.classes)
        (T,) = model.variables(1, max((self._max_us(device) for device in self.devices), default=0))
        self.x = [model.variables(C) for _ in self.devices]
        self.y = [model.variables(len(self.units)) for _ in self.devices]
        idle = model.variables(len(self.devices))
        for c in range(C):
            model.at_least(1, [x[c] for x in self.x], [1] * len(self.x))  # (1)
        anchor = self.profile.depth - 1, True, anchor_head(self.profile)
        for device, x, y, i in zip(self.devices, self.x, self.y, idle, strict=True):
            model.at_least(1, [*x, i], [1] * (C + 1))  # (2)
            for c, need in enumerate(self._needs(device.widths[0].max_retention)):
                model.at_most(1, [x[c], i], [1, 1])  # (2)
                model.at_least(0, [*y, x[c]], [*self.importance[c], -need])  # (3)
            for u in [u for u, unit in enumerate(self.units) if unit == anchor]:
                model.at_least(1, [y[u], i], [1, 1])  # (8)
            self._memory(model, device, y)
            self._time(model, device, y, i, T)
        F = self._fusion(model, idle)
        model.objective = [T, F]
        return model

    def _needs(self, max_retention: Sequence[float]) -> list[int]:
        """Return the importance that each class needs."""

        def scaled_need(floor: float, share: float) -> int:
            # Half of the check's tolerance, as in the planner's solver.
            min_retention = floor - RETENTION_TOLERANCE / 2
            if min_retention <= 0:
                return 0
            # A need of 2 is more than all units have.
            need = min_retention / share if share > 0 else 2.0
            return math.ceil(min(2.0, need) * _IMPORTANCE_SCALE)

        floors = floors_of(self.profile, self.goal, None).tolist()
        return [scaled_need(floor, share) for floor, share in zip(floors, max_retention, strict=True)]

    def _memory(self, model: LinearModel, device: DeviceCost, y: list[int]) -> None:
        """Add (4)."""
        width = device.widths[0].width
        free = _free_bytes(device)
        per_unit = {True: rational(width.head_activation_bytes), False: rational(width.channel_activation_bytes)}
        grains = math.lcm(free.denominator, *(a.denominator for a in per_unit.values()))
        each = BYTES_PER_PARAM[device.widths[0].precision] * grains
        weights = [
            each * size * (width.head_params if is_head else width.channel_params)[l]
            for (l, is_head, _), size in zip(self.units, self.sizes, strict=True)
        ]
        rows = [
            (members, [int(per_unit[is_head] * self.sizes[u] * grains) for u in members])
            for (_, is_head), members in self.halves
        ]
        (peak,) = model.variables(1, max((sum(row) for _, row in rows), default=0))
        model.at_most(int(free * grains), [*y, peak], [*weights, 1])
        for members, row in rows:
            model.at_least(0, [peak, *(y[u] for u in members)], [1, *(-a for a in row)])

    def _time(self, model: LinearModel, device: DeviceCost, y: list[int], idle: int, T: int) -> None:
        """Add (5) and (6)."""
        ticks, fixed, per_unit, switches = self._times(device)
        variables, coefficients = [T, idle, *y], [ticks, fixed, *(-t for t in per_unit)]
        for (_, is_head), members in self.halves:
            if switches[is_head] and members:
                (q,) = model.variables(1)
                variables.append(q)
                coefficients.append(-switches[is_head])
                for u in members:
                    model.at_least(0, [q, y[u]], [1, -1])
        model.at_least(fixed, variables, coefficients)

    def _fusion(self, model: LinearModel, idle: list[int]) -> int:
        """Add (7) and return F."""
        rate, hidden = cost.aggregator_rate(self.fleet), self.profile.fusion_hidden
        dims = [device.widths[0].width.embed_dim for device in self.devices]
        (F,) = model.variables(1, cost.fusion_us(self.profile, rate, sum(dims)))
        us_per_dim = Fraction(10**6 * hidden) / rate
        per, scale = us_per_dim.numerator, us_per_dim.denominator
        model.at_least(per * (sum(dims) + len(self.profile.classes)), [F, *idle], [scale, *(per * e for e in dims)])
        return F

    def _times(self, device: DeviceCost) -> tuple[int, int, list[int], dict[bool, int]]:
        """Return ticks to the microsecond, then times in ticks: of fixed part and path, of units, of half-blocks."""
        at = device.widths[0]
        time = at.time
        scale = math.lcm(*(t.denominator for t in (time.fixed, time.attention, time.mlp, *time.head, *time.channel)))
        ticks = min(scale, _MAX_TICKS)
        per_unit = [
            math.ceil(ticks * size * (time.head if is_head else time.channel)[l])
            for (l, is_head, _), size in zip(self.units, self.sizes, strict=True)
        ]
        ((send_us, return_us),) = cost.transfers_us(self.fleet, [at])
        fixed = ticks * (send_us + return_us) + math.ceil(ticks * time.fixed)
        return ticks, fixed, per_unit, {True: math.ceil(ticks * time.attention), False: math.ceil(ticks * time.mlp)}

    def _max_us(self, device: DeviceCost) -> int:
        """Return an upper bound on a device's latency [us]: that of the whole model, or slightly more."""
        ticks, fixed, per_unit, switches = self._times(device)
        return -(-(fixed + sum(per_unit) + self.profile.depth * sum(switches.values())) // ticks)


def _free_bytes(device: DeviceCost) -> Fraction:
    """Return the bytes that the budget leaves for units and their activations."""
    at = device.widths[0]
    weights = at.width.fixed_params * BYTES_PER_PARAM[at.precision]
    fixed = weights + rational(at.width.fixed_activation_bytes) + device.runtime_overhead_bytes
    return device.memory_budget_bytes - fixed
