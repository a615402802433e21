"""A good plan and a bound for fleets with more classes than can be listed subset by subset.

The plan: each class goes to the device on which the slowest device stays fastest, by the linear
relaxation of what the device then has to run; classes then move off the slowest device as long
as that helps; and again with half the devices, and half of those, since each that is used makes
the fusion slower. The bound: on option o, a device that serves n classes takes at least as long as
the n-th cheapest single class at the floor for n; so it holds at most n_o(T) classes within T,
and the least T at which all devices together can hold all classes is a bound.
"""

import time
from collections.abc import Sequence

import numpy as np

from planner.solver import submodel
from planner.solver.instance import NEVER, Found, Instance, Ints, Option, Placed, Progress

# Orders in which the classes are placed before the search for a first plan is given up.
NUM_ORDERS = 20


def search(instance: Instance, deadline: float, progress: Progress) -> Found:
    """Find a plan and a bound; see the module.

    Args:
        instance: Any number of classes.
        deadline: When to stop improving, in the time of `time.monotonic` [s].
        progress: Called with the best latency so far and the bound [us].
    """
    bound_us = fleet_bound_us(instance)
    if bound_us is None:
        return Found(None, None)
    progress(None, bound_us)
    loads = _Loads(instance)
    best: tuple[Placed, ...] | None = None
    # Every device used makes the fusion slower: fewer of them may be faster.
    most_used = len(loads.groups)
    while most_used:
        placed = _first_placement(loads, deadline, most_used)
        while placed is not None and (best is None or _faster(instance, placed, best)):
            best = placed
            progress(instance.fleet_latency_us(best), bound_us)
            placed = loads.build(deadline) if _improve(loads, deadline) else None
        if time.monotonic() > deadline:
            break
        most_used //= 2
    return Found(best, bound_us)


def _faster(instance: Instance, placed: Sequence[Placed], best: Sequence[Placed]) -> bool:
    return instance.fleet_latency_us(placed) < instance.fleet_latency_us(best)


def first_plan(instance: Instance, deadline: float) -> tuple[Placed, ...] | None:
    """Return some plan, if one is found before the deadline."""
    loads = _Loads(instance)
    return _first_placement(loads, deadline, len(loads.groups))


def _first_placement(loads: "_Loads", deadline: float, most_used: int) -> tuple[Placed, ...] | None:
    """Place the classes in one order after the other until all sub-models exist."""
    need = loads.instance.options[0].need[:, 0]
    order = np.argsort(-need, kind="stable")
    rng = np.random.default_rng(0)
    for _ in range(NUM_ORDERS):
        loads.clear()
        if _place_all(loads, order.tolist(), deadline, most_used):
            placed = loads.build(deadline)
            if placed is not None:
                return placed
        if time.monotonic() > deadline:
            break
        order = rng.permutation(len(order))
    return None


def fleet_bound_us(instance: Instance) -> int | None:
    """Return a bound on the fleet's latency [us]; None if the fleet cannot hold all classes."""
    counts = [len(names) for names in instance.groups]
    times = [_times_by_count(instance, option) for option in instance.options]

    def holds(latency_us: int) -> bool:
        most = [0] * len(counts)
        for option, by_count in zip(instance.options, times, strict=True):
            served = np.flatnonzero(by_count <= latency_us)
            most[option.group] = max(most[option.group], int(served[-1]) + 1 if len(served) else 0)
        return sum(n * count for n, count in zip(most, counts, strict=True)) >= instance.num_classes

    levels = np.unique(np.concatenate(times))
    levels = levels[levels < NEVER]
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(int(levels[middle])) else (middle + 1, high)
    if low == len(levels):
        return None
    return int(levels[low]) + instance.fusion_us(min(option.embed_dim for option in instance.options))


def _times_by_count(instance: Instance, option: Option) -> Ints:
    """Return the least latency [us] of serving n classes, as far as single classes tell; [n - 1]."""
    importance = instance.units.importance
    solo = np.empty((instance.num_classes, instance.num_classes))
    for c in range(instance.num_classes):
        order = np.argsort(option.unit_ticks / np.maximum(importance[c], 1e-3), kind="stable")
        have = np.concatenate([[0], np.cumsum(importance[c, order])])
        ticks = np.concatenate([[0], np.cumsum(option.unit_ticks[order])])
        solo[c] = np.interp(option.need[c], have, ticks)
        solo[c][option.need[c] > have[-1]] = NEVER * option.ticks_per_us
    if option.free_grains < 0:
        solo[:] = NEVER * option.ticks_per_us
    nth = np.sort(solo, axis=0).diagonal()
    time_us = (nth * (1 - 1e-9) + option.fixed_ticks) / option.ticks_per_us + option.path_us
    time_us[nth >= NEVER * option.ticks_per_us] = NEVER
    return np.ceil(np.minimum(time_us, NEVER) - 1e-6).astype(np.int64)


class _Loads:
    """Which classes each device serves so far, and a bound on how long that takes it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        # One entry per device, at the option that suits its classes best.
        self.groups = [g for g, names in enumerate(instance.groups) for _ in names]
        self.clear()
        self._relaxations = [submodel.Relaxation(instance, option) for option in instance.options]
        self._seen: dict[tuple[int, tuple[int, ...]], tuple[int, int]] = {}

    def clear(self) -> None:
        """Take all classes off all devices; what was learned of subsets is kept."""
        self.classes: list[tuple[int, ...]] = [()] * len(self.groups)
        self.time_us = [0] * len(self.groups)

    def cost(self, device: int, classes: tuple[int, ...]) -> tuple[int, int]:
        """Return the least time [us] of these classes on a device, and the option that gives it."""
        if not classes:
            return 0, -1
        group = self.groups[device]
        key = (group, classes)
        if key not in self._seen:
            times = []
            for o, option in enumerate(self.instance.options):
                if option.group == group:
                    bound = self._relaxations[o].bound(classes)
                    latency_us = NEVER if bound is None else option.path_us + int(bound.by_count[len(classes) - 1])
                    times.append((latency_us, o))
            self._seen[key] = min(times)
        return self._seen[key]

    def set(self, device: int, classes: tuple[int, ...]) -> None:
        self.classes[device] = classes
        self.time_us[device] = self.cost(device, classes)[0]

    def build(self, deadline: float) -> tuple[Placed, ...] | None:
        """Return the sub-models themselves; None if one of them does not exist or time is up."""
        placed = []
        for device, classes in enumerate(self.classes):
            if not classes:
                continue
            option = self.instance.options[self.cost(device, classes)[1]]
            left = deadline - time.monotonic()
            # A plan comes before a better one: each sub-model gets a moment even when time is up.
            answer = submodel.cheapest(self.instance, option, classes, max(0.2, min(5.0, left / 10)))
            if answer.kept is None:
                return None
            placed.append(Placed(option, classes, answer.kept))
        return tuple(placed)


def _place_all(loads: _Loads, order: Sequence[int], deadline: float, most_used: int) -> bool:
    """Put each class where the slowest device stays fastest; say whether all found a place."""
    for c in order:
        if time.monotonic() > deadline:
            return False
        choices: list[tuple[int, int, tuple[int, ...]]] = []
        tried = set()
        full = sum(map(bool, loads.classes)) >= most_used
        for device, group in enumerate(loads.groups):
            if (group, loads.classes[device]) in tried or (full and not loads.classes[device]):
                continue
            tried.add((group, loads.classes[device]))
            classes = tuple(sorted((*loads.classes[device], c)))
            choices.append((loads.cost(device, classes)[0], device, classes))
        time_us, device, classes = min(choices)
        if time_us >= NEVER:
            return False
        loads.set(device, classes)
    return True


def _improve(loads: _Loads, deadline: float) -> bool:
    """Move classes off the slowest device while that makes the fleet faster; say whether any moved."""
    moved = False
    while time.monotonic() < deadline:
        slowest = int(np.argmax(loads.time_us))
        move = _best_move(loads, slowest, deadline)
        if move is None:
            return moved
        for device, classes in move:
            loads.set(device, classes)
        moved = True
    return moved


def _best_move(loads: _Loads, slowest: int, deadline: float) -> Sequence[tuple[int, tuple[int, ...]]] | None:
    best, best_us = None, loads.time_us[slowest]
    for c in loads.classes[slowest]:
        fewer = tuple(k for k in loads.classes[slowest] if k != c)
        tried = set()
        for device, group in enumerate(loads.groups):
            key = (group, loads.classes[device])
            if device == slowest or key in tried or time.monotonic() > deadline:
                continue
            tried.add(key)
            more = tuple(sorted((*loads.classes[device], c)))
            slower_us = max(loads.cost(slowest, fewer)[0], loads.cost(device, more)[0])
            if slower_us < best_us:
                best, best_us = [(slowest, fewer), (device, more)], slower_us
    return best
