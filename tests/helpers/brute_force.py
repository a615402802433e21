"""The best plan of a small instance by trying everything: an oracle that shares no code with the planner.

Sub-models: every subset of the units, for every device, width, precision and class subset. Of
those that meet the floors only the fastest matters, to the latency, the energy (it goes with the
compute time) and the number of devices alike. Plans: every choice of one width or idleness for
every device, and, in arrays with one axis for each used device, every choice of class subsets.
For accuracy, which brute_accuracy.py has, it is the latency.

Costs are in brute_costs.py.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tests.helpers import brute_costs
from tests.helpers.brute_costs import Form, Ints, Route, exact
from tests.helpers.common import Json

NEVER = 2**60
# `check` forgives one part per million, which is less than importance can be measured to.
FORGIVEN = 5e-7

# The least compute time [us] of one device: {embed dim: (class subsets, times)}.
Table = dict[int, tuple[Ints, Ints]]


@dataclass(frozen=True)
class Best:
    """A best plan: its objective value, its latency, and each device's (class subset as a bit mask, embed dim).

    `value` is a latency [us], an energy [mJ], or a number of devices (at the least latency that so many can have).
    """

    value: Fraction | float
    latency_us: int
    picks: tuple[tuple[int, int] | None, ...]


def best(profile: Json, fleet: Json, goal: Json, *, floors: Sequence[float] = ()) -> Best | None:
    """Return a best plan, or None where no plan exists.

    Args:
        profile: As in profile.json; at most about 10 units.
        fleet: As in devices.json; at most about 4 single devices, each with its own `runtime_overhead`.
        goal: As in a goal file, with `min_retention`.
        floors: Retention floor of each class, if not the goal's.
    """
    possible = {name: list(brute_costs.forms(profile, d)) for name, d in brute_costs.members(fleet).items()}
    routes = {name: _routes(profile, fleet, name, forms) for name, forms in possible.items()}
    floors = floors or [goal["min_retention"]] * len(profile["classes"])
    tables = {name: _table(forms, _allowed(profile, fleet, goal, name), floors) for name, forms in possible.items()}
    return _search(profile, fleet, goal, tables, routes)


def _allowed(profile: Json, fleet: Json, goal: Json, device: str) -> list[int]:
    """Return the class subsets that a device may serve; 0 is an idle device."""
    stands_for = brute_costs.named(fleet)

    def bits(classes: Iterable[str]) -> int:
        return sum(1 << profile["classes"].index(name) for name in classes)

    def here(placements: dict[str, list[str]]) -> int:
        return bits(name for name, on in placements.items() if any(device in stands_for[d] for d in on))

    must, never = here(goal["pin"]), here(goal["forbid"])
    if any(device in stands_for[d] for d in goal["leave_out"]):
        never = bits(profile["classes"])
    together, apart = ([bits(group) for group in goal[key]] for key in ("together", "apart"))
    return [
        mask
        for mask in range(2 ** len(profile["classes"]))
        if mask & must == must
        and not mask & never
        and all(mask & group in (0, group) for group in together)
        and all((mask & group).bit_count() <= 1 for group in apart)
    ]


def _table(forms: Sequence[Form], allowed: Sequence[int], floors: Sequence[float]) -> Table:
    """Return the lowest compute times at which a device keeps the floors.

    Idleness, where it is allowed, is embed dim 0.
    """
    least: dict[int, dict[int, int]] = {0: {0: 0}} if 0 in allowed else {}
    for form, mask in itertools.product(forms, allowed):
        served = [c for c in range(len(floors)) if mask >> c & 1]
        need = [floors[c] - FORGIVEN for c in served]
        good = (form.kept[:, served] >= need).all(axis=1)
        if served and good.any():
            times = least.setdefault(form.embed_dim, {})
            times[mask] = min(times.get(mask, NEVER), int(form.compute_us[good].min()))
    return {dim: (np.array(list(times)), np.array(list(times.values()))) for dim, times in least.items()}


def _routes(profile: Json, fleet: Json, device: str, forms: Sequence[Form]) -> dict[int, Route]:
    """Return the route of the input (embed dim 0), and of the features at each embed dim."""
    sizes = {form.embed_dim: profile["feature_bytes_per_embed_dim"] * form.embed_dim for form in forms}
    return {dim: brute_costs.route(fleet, device, size) for dim, size in ({0: profile["input_bytes"]} | sizes).items()}


def _search(
    profile: Json, fleet: Json, goal: Json, tables: dict[str, Table], routes: dict[str, dict[int, Route]]
) -> Best | None:
    """Try every combination of widths and, for each, every combination of class subsets."""
    relays = {name: frozenset().union(*(route.relays for route in taken.values())) for name, taken in routes.items()}
    power_uw, per_uj = _powers(fleet, goal)
    max_us = math.floor(1000 * exact(goal["max_latency_ms"])) if goal["max_latency_ms"] else NEVER
    max_energy = math.floor(1000 * exact(goal["max_energy_mj"]) * per_uj) if goal["max_energy_mj"] else NEVER
    least: tuple[int, int] | None = None
    found: Best | None = None
    for dims in itertools.product(*tables.values()):
        used = {name: dim for name, dim in zip(tables, dims, strict=True) if dim}
        if not used:
            continue
        masks = np.ix_(*(tables[name][dim][0] for name, dim in used.items()))
        computes = np.ix_(*(tables[name][dim][1] for name, dim in used.items()))
        sends = brute_costs.travel_us([routes[name][0] for name in used])
        returns = brute_costs.travel_us([routes[name][dim] for name, dim in used.items()])
        times = np.array(0)
        for send_us, compute_us, return_us in zip(sends, computes, returns, strict=True):
            times = np.maximum(times, send_us + compute_us + return_us)
        times = times + fusion_us(profile, fleet, sum(dims))
        energies = sum(power_uw[name] * compute_us for name, compute_us in zip(used, computes, strict=True))
        good = _served(profile, goal["survive"], dict(zip(used, masks, strict=True)), relays)
        good = good & (times <= max_us) & (energies <= max_energy)
        wanted = np.where(good, energies if goal["objective"] == "energy" else times, NEVER)
        at = np.unravel_index(np.argmin(wanted), wanted.shape)
        key = (len(used) if goal["objective"] == "devices" else 0, int(wanted[at]))
        if good[at] and (least is None or key < least):
            subsets = {name: int(mask.ravel()[i]) for name, mask, i in zip(used, masks, at, strict=True)}
            picks = tuple((subsets[name], used[name]) if name in used else None for name in tables)
            value = Fraction(key[1], 1000 * per_uj) if goal["objective"] == "energy" else key[0] or key[1]
            least, found = key, Best(value, int(times[at]), picks)
    return found


def _served(
    profile: Json, survive: int, masks: dict[str, Ints], relays: dict[str, frozenset[str]]
) -> NDArray[np.bool_]:
    """Return which combinations serve every class, also when any `survive` relays are lost with all behind them."""
    good = np.ones(np.broadcast_shapes(*(mask.shape for mask in masks.values())), dtype=bool)
    for size in range(survive + 1):
        for lost in map(set, itertools.combinations(frozenset().union(*relays.values()), size)):
            left = [mask for name, mask in masks.items() if not lost & {name, *relays[name]}]
            for c in range(len(profile["classes"])):
                good = good & (sum(mask >> c & 1 for mask in left) >= survive + 1 - size)
    return good


def _powers(fleet: Json, goal: Json) -> tuple[dict[str, int], int]:
    """Return each device's power in whole parts, and the number of parts in a watt (so that 1 W x 1 us is whole)."""
    counts = goal["objective"] == "energy" or goal["max_energy_mj"]
    powers = {name: exact(d["active_power_w"] or 0 if counts else 0) for name, d in brute_costs.members(fleet).items()}
    parts = math.lcm(*(power.denominator for power in powers.values()))
    return {name: int(power * parts) for name, power in powers.items()}, parts


def fusion_us(profile: Json, fleet: Json, embed_dims: int) -> int:
    """Return the time [us] of the fusion of so many embed dims."""
    rate = exact(brute_costs.members(fleet)[fleet["aggregator"]]["macs_per_second"])
    macs: int = profile["fusion_hidden"] * (embed_dims + len(profile["classes"]))
    return math.ceil(10**6 * macs / rate)
