"""Assignments of class subsets to the devices of an instance, and random placements."""

import itertools
from collections.abc import Iterator

import numpy as np

from planner.rules.cost import device_costs
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel

# Class subset (a bit mask) of each device; 0 is an idle device.
Masks = tuple[int, ...]


def devices_of(instance: Instance) -> list[tuple[str, int]]:
    """Return the name and the group of each device that is not left out."""
    return [(name, g) for g, group in enumerate(instance.groups) for name in group.names]


def assignments(instance: Instance) -> Iterator[Masks]:
    """Yield every choice of a class subset for each device."""
    yield from itertools.product(range(2**instance.num_classes), repeat=len(devices_of(instance)))


def names_of(instance: Instance, mask: int) -> list[str]:
    """Return the names of the classes in a mask."""
    return [name for c, name in enumerate(instance.profile.classes) if mask >> c & 1]


def served_by(instance: Instance, masks: Masks) -> dict[str, list[str]]:
    """Return the class names that each used device serves."""
    return {name: names_of(instance, mask) for (name, _), mask in zip(devices_of(instance), masks, strict=True) if mask}


def relays_of(instance: Instance) -> dict[str, frozenset[str]]:
    """Return the devices over which each device is reached."""
    return {device.name: device.relays for device in device_costs(instance.profile, instance.fleet)}


def random_placement(instance: Instance, rng: np.random.Generator) -> dict[str, PlacedSubModel]:
    """Return random sub-models, whether they fit or not, on some devices, at least one."""
    placed = {}
    devices = devices_of(instance)
    for i in rng.permutation(len(devices))[: int(rng.integers(1, len(devices) + 1))].tolist():
        name, g = devices[i]
        option = rng.choice(np.array([o for o, x in enumerate(instance.options) if x.group == g]))
        classes = rng.permutation(instance.num_classes)[: int(rng.integers(1, instance.num_classes + 1))]
        kept = np.flatnonzero(rng.random(len(instance.units)) < rng.random())
        placed[name] = PlacedSubModel(
            instance.options[int(option)], tuple(sorted(classes.tolist())), tuple(kept.tolist())
        )
    return placed
