"""Baselines: three planners in the style of the papers that this work builds on.

None looks for the least latency: all prune no more than they must to fit the budgets
(and the latency limit, where the goal has one). Neither paper's planner was published as code
that runs on unequal devices; these follow their descriptions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner.errors import InfeasibleError, TimeLimitError, setting
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import Option, PlacedSubModel

# Pruning ratios are tried in steps of one of this many.
_STEPS = 32


def random_equal(instance: Instance, seed: int, clock: Clock) -> tuple[PlacedSubModel, ...]:
    """Place shuffled near-equal class subsets with one pruning ratio for all: the largest sub-models that fit.

    Raises:
        InfeasibleError: If at no ratio every device holds its sub-model with the floors met.
        TimeLimitError: If that was not known in time.

    Source:
        DeViT, arXiv 2309.05015: labels shuffled, cut into near-equal parts, equal devices.
    """
    rng = np.random.default_rng(seed)
    options = _full_width(instance)
    subsets = _near_equal(instance, len(options), rng)
    devices = rng.permutation(len(options))[: len(subsets)].tolist()
    shrinks = [_Shrink(instance, subset) for subset in subsets]
    for step in range(_STEPS, -1, -1):
        placed = [PlacedSubModel(options[d], s.classes, s.kept(step)) for d, s in zip(devices, shrinks, strict=True)]
        if all(_holds(instance, p, len(subsets), clock) for p in placed):
            return tuple(placed)
    raise InfeasibleError(
        "No plan by random-equal: at no common pruning ratio does every device hold its sub-model, in "
        f"time and with the floors met. Use {setting('method', 'exact')}, or another {setting('seed')}."
    )


def greedy(instance: Instance, seed: int, clock: Clock) -> tuple[PlacedSubModel, ...]:
    """Prune each near-equal class subset until some free device holds it, and place it on the fastest such.

    Raises:
        InfeasibleError: If a subset reaches its floors before any free device holds it.
        TimeLimitError: If that was not known in time.

    Source:
        ED-ViT, arXiv 2410.11650, and EC-SNN (IJCAI 2024): random subsets whose sizes differ by at
        most one; the device that fits and has most left.
    """
    rng = np.random.default_rng(seed)
    free = _full_width(instance)
    subsets = _near_equal(instance, len(free), rng)
    placed = []
    for subset in subsets:
        shrink = _Shrink(instance, subset)
        for step in range(_STEPS, -1, -1):
            tries = [PlacedSubModel(option, subset, shrink.kept(step)) for option in free]
            holding = [p for p in tries if _holds(instance, p, len(subsets), clock)]
            if holding:
                break
        else:
            names = ", ".join(instance.profile.classes[c] for c in subset)
            raise InfeasibleError(
                f"No plan by greedy: the subset of classes {names} reaches its floors before any free "
                f"device holds it. Use {setting('method', 'exact')}, or another {setting('seed')}."
            )
        best = min(holding, key=lambda p: p.option.alone_us + instance.compute_us(p.option, p.kept))
        placed.append(best)
        free.remove(best.option)
    return tuple(placed)


def memory_proportional(instance: Instance, seed: int, clock: Clock) -> tuple[PlacedSubModel, ...]:
    """Give each device classes in proportion to its room for weights, and the largest sub-model of them that fits.

    Raises:
        InfeasibleError: If a device does not hold its share with the floors met.
        TimeLimitError: If that was not known in time.
    """
    options = _full_width(instance)
    # Weights take the last budget.
    free = np.array([max(0, option.free_grains[-1] / option.costs.grains_per_byte) for option in options])
    if not free.any():
        raise InfeasibleError("No plan by memory-proportional: no device has memory left for any unit.")
    ends = np.rint(np.cumsum(free) / free.sum() * instance.num_classes).astype(int)
    shuffled = np.random.default_rng(seed).permutation(instance.num_classes)
    subsets = [tuple(sorted(part.tolist())) for part in np.split(shuffled, ends[:-1])]
    used = [(option, subset) for option, subset in zip(options, subsets, strict=True) if subset]
    placed = []
    for option, subset in used:
        shrink = _Shrink(instance, subset)
        tries = (PlacedSubModel(option, subset, shrink.kept(step)) for step in range(_STEPS, -1, -1))
        holding = next((p for p in tries if _holds(instance, p, len(used), clock)), None)
        if holding is None:
            raise InfeasibleError(
                f"No plan by memory-proportional: {option.device.name} does not hold its {len(subset)} classes, in "
                f"time and with the floors met. Use {setting('method', 'exact')}, or another {setting('seed')}."
            )
        placed.append(holding)
    return tuple(placed)


@dataclass(frozen=True)
class _Shrink:
    """One class subset's sub-models, from whole (step `_STEPS`) to the anchor head alone (step 0).

    Each block keeps the same share of its heads and groups: the anchor head, then those of most importance, summed
    over the subset.
    """

    instance: Instance
    classes: tuple[int, ...]

    @cached_property
    def _ranked(self) -> list[list[int]]:
        units = self.instance.units
        value = units.importance[list(self.classes)].sum(axis=0)
        value[list(units.always_kept)] = NEVER
        halves = [
            np.flatnonzero((units.block == l) & (units.is_head == is_head))
            for l in range(units.depth)
            for is_head in (True, False)
        ]
        return [half[np.argsort(-value[half], kind="stable")].tolist() for half in halves]

    def kept(self, step: int) -> tuple[int, ...]:
        """Return the units kept at a step."""
        # Rounded up: a block keeps at least one of each for as long as anything is kept.
        chosen = {u for half in self._ranked for u in half[: -(-step * len(half) // _STEPS)]}
        return tuple(sorted(chosen.union(self.instance.units.always_kept)))


def _full_width(instance: Instance) -> list[Option]:
    """Return an option for each device, in the order of the groups: the widest."""
    widest: dict[int, Option] = {}
    for option in instance.options:
        if option.group not in widest or option.embed_dim > widest[option.group].embed_dim:
            widest[option.group] = option
    return [option for option in widest.values() for _ in range(option.count)]


def _near_equal(instance: Instance, num_devices: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    shuffled = rng.permutation(instance.num_classes)
    parts = np.array_split(shuffled, min(num_devices, instance.num_classes))
    return [tuple(sorted(part.tolist())) for part in parts]


def _holds(instance: Instance, p: PlacedSubModel, num_used: int, clock: Clock) -> bool:
    """Say whether a device holds a sub-model: in memory, with its floors and in time."""
    if clock.expired():
        raise TimeLimitError(
            f"No plan by {instance.goal.method} within {clock.seconds:g} s. Raise {setting('time_limit_s')}, "
            f"or use {setting('method', 'exact')}."
        )
    return instance.can_serve(p.option, p.classes, p.kept) and _in_time(instance, p, num_used)


def _in_time(instance: Instance, p: PlacedSubModel, num_used: int) -> bool:
    limit_us = instance.goal.max_latency_us
    if limit_us is None:
        return True
    fusion_us = instance.fusion_us(num_used * max(option.embed_dim for option in instance.options))
    return (p.option.alone_us + instance.compute_us(p.option, p.kept)) + fusion_us <= limit_us


BASELINES = {
    "random-equal": random_equal,
    "greedy": greedy,
    "memory-proportional": memory_proportional,
}
