"""Division of the classes among the devices within a time by backtracking: one that is found, or a proof of none.

A node is the classes of each device so far. Its children are the ways to give one more class to a device whose relaxed
sub-model stays within the time, an idle one among them. The class is one that few devices may take; where none may,
the node is a dead end. Once each class that is left is served already by some device's relaxed sub-model, all are
divided. So only classes that decide something are branched on, a dozen or two of a hundred.

Classes that came to a dead end are tried earlier from then on, and the search is begun anew: those that together do
not fit come first in the end, and the tree is small. The first time, all weigh the same: for a time at which there is
room, that is the straight way to a division. Whole devices are counted, where prices of classes count parts of
them; but where many devices are all a little too small, prices say so at once, and this search does not.

A class that must be on several devices is given to one after the other, for each of the rows of `problem.covering`. A
node without children leaves nothing out, since the bounds are those of relaxations: what is refuted has no plan.

Source: Boussemart, Hemery, Lecoutre and Sais, Boosting systematic search by weighting constraints, ECAI 2004; the
choice by number of colours left, Brélaz, doi:10.1145/359094.359101.

Legend: C classes, G groups, R rows, D devices in use, N rows that lack devices.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.solver.large.conflicts import Conflicts
from planner.solver.large.device_bounds import DeviceBounds, DeviceBoundsCache
from planner.solver.large.set_cover import ClassSet, SetCover
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER

# Nodes before the search is begun anew the first time, at least and for each row, and the factor of that each time.
_FIRST_NODES, _NODES_PER_ROW, _MORE_NODES = 60.0, 0.5, 1.4
# What is left of a weight then.
_KEPT_WEIGHT = 0.9
# An idle device is tried before one that would take so much of the time more; of two that would take the same, the one
# that is fuller then, in so small a measure, comes later.
_IDLE, _FULLNESS = 0.15, 0.05
# Share of a floor that is a rounding error.
_SERVED = -1e-9
# Rough time of a node [s], where work is counted.
_NODE_S = 3e-4

# Group and classes of a device.
_Device = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class _Node:
    devices: tuple[_Device, ...]
    lacking: Ints  # devices that each row lacks, (R,)


@dataclass(frozen=True, eq=False)
class _Choices:
    """Rows of a node that lack devices, and which devices may take their classes."""

    rows: Ints  # (N,)
    wider_us: Ints  # (D, N)
    may_take: Bools  # (D, N)
    idle_may_take: Bools  # some idle device of each group, (G, N)
    served: Bools  # without any more time, (D, N)
    num_able: Ints  # devices, (N,)


class Backtracking:
    """Divisions of an instance's classes, for any time limit."""

    def __init__(self, cover: SetCover, conflicts: Sequence[Conflicts]) -> None:
        self._cover, self._instance = cover, cover.instance
        self._bounds = DeviceBoundsCache(conflicts)
        self._single_us = np.array([self._bounds.single_us(g) for g in range(len(cover.counts))])  # (G, C)
        self._class_of = np.array([row.class_index for row in cover.rows])
        self._counted = np.array([[row.counts(g) for row in cover.rows] for g in range(len(cover.counts))])  # (G, R)
        self._weights: Floats = np.ones(self._instance.num_classes)
        atoms = {c: tuple(sorted(atom)) for atom in self._instance.together for c in atom}
        self._atom_of = [atoms.get(c, (c,)) for c in range(self._instance.num_classes)]
        self._is_free = not self._instance.together and not self._instance.apart

    def divided(self, latency_us: int, clock: Clock) -> list[ClassSet] | None:
        """Return a class set for each used device that its relaxation allows within a time; None if there are none.

        Args:
            latency_us: Time [us].
            clock: Time for it.

        Raises:
            TimeoutError: If neither was found in time.
        """
        max_nodes = max(_FIRST_NODES, _NODES_PER_ROW * len(self._class_of))
        weights: Floats = np.ones(len(self._weights))
        while True:
            nodes, num_nodes = [iter([self._root()])], 0
            while nodes and num_nodes < max_nodes:
                node = next(nodes[-1], None)
                if node is None:
                    nodes.pop()
                    continue
                if clock.expired():
                    raise TimeoutError
                clock.spend(_NODE_S)
                num_nodes += 1
                bounds = [self._bounds.bounds(*device, clock) for device in node.devices]
                choices = self._choices(node, bounds, latency_us)
                unserved = choices.served.sum(axis=0) < node.lacking[choices.rows]
                if not unserved.any():
                    return self._class_sets(node, bounds, choices)
                if not self._is_dead_end(node, choices):
                    at = self._branched(choices, unserved, weights, latency_us)
                    nodes.append(self._children(node, bounds, choices, at, latency_us, clock))
            if not nodes:
                return None
            max_nodes *= _MORE_NODES
            weights = self._weights = np.maximum(1.0, _KEPT_WEIGHT * self._weights)

    def _root(self) -> _Node:
        """Return the node in which devices serve what is pinned to them, and no others are used."""
        node = _Node((), self._cover.demand.astype(np.int64))
        for g, group in enumerate(self._instance.groups):
            pinned = tuple(sorted({other for c in group.pinned for other in self._atom_of[c]}))
            for _ in group.names if pinned else ():
                node = self._with(node, None, (g, pinned), pinned)
        return node

    def _with(self, node: _Node, index: int | None, device: _Device, new: Sequence[int]) -> _Node:
        """Return a node with a device in the place of one, or beside all others, that serves new classes."""
        devices = list(node.devices)
        if index is None:
            devices.append(device)
        else:
            devices[index] = device
        gained = self._counted[device[0]] & np.isin(self._class_of, new)
        return _Node(tuple(devices), np.maximum(0, node.lacking - gained))

    def _choices(self, node: _Node, bounds: Sequence[DeviceBounds], latency_us: int) -> _Choices:
        rows = np.flatnonzero(node.lacking)
        classes, groups = self._class_of[rows], [g for g, _ in node.devices]
        counted = self._counted[:, rows]
        shape = len(groups), len(rows)
        wider_us = np.array([b.wider_us[classes] for b in bounds], dtype=np.int64).reshape(shape)
        may_take = (wider_us <= latency_us) & counted[groups]
        spare = np.array([b.spare[classes] for b in bounds]).reshape(shape)
        served = may_take & (spare >= _SERVED) if self._is_free else np.zeros(shape, dtype=bool)
        in_use = Counter(groups)
        free = np.array([n - in_use[g] for g, n in enumerate(self._cover.counts.tolist())])
        free = np.minimum(free, max(0, self._cover.max_devices - len(groups)))
        idle_may_take = (free[:, None] > 0) & (self._single_us[:, classes] <= latency_us) & counted
        num_able = may_take.sum(axis=0) + (idle_may_take * free[:, None]).sum(axis=0)
        return _Choices(rows, wider_us, may_take, idle_may_take, served, num_able)

    def _is_dead_end(self, node: _Node, choices: _Choices) -> bool:
        """Return whether some class has too few devices left; such classes gain weight."""
        short = choices.num_able < node.lacking[choices.rows]
        self._weights[np.unique(self._class_of[choices.rows[short]])] += 1
        return bool(short.any())

    def _children(
        self, node: _Node, bounds: Sequence[DeviceBounds], choices: _Choices, at: int, latency_us: int, clock: Clock
    ) -> Iterator[_Node]:
        """Yield the nodes in which the class of a row is on one more device, the most promising first."""
        c = int(self._class_of[choices.rows[at]])
        tried: list[tuple[float, int | None, int]] = []
        for d in np.flatnonzero(choices.may_take[:, at]).tolist():
            wider_us = int(choices.wider_us[d, at])
            growth = (wider_us - bounds[d].latency_us) / latency_us
            tried.append((growth + _FULLNESS * wider_us / latency_us, d, node.devices[d][0]))
        # Of idle devices, the slowest that may take it first.
        idle = np.flatnonzero(choices.idle_may_take[:, at]).tolist()
        tried += [(_IDLE, None, g) for g in sorted(idle, key=lambda g: -int(self._single_us[g, c]))]
        seen: set[_Device] = set()
        any_child = False
        for _, index, g in sorted(tried, key=lambda choice: choice[0]):
            have = () if index is None else node.devices[index][1]
            new = tuple(sorted({*have, *self._atom_of[c]}))
            # Devices with the same classes are alike.
            if (g, new) in seen or not (self._is_free or self._instance.allows(g, new)):
                continue
            seen.add((g, new))
            if self._bounds.is_within(latency_us, g, have, c, new, clock):
                any_child = True
                yield self._with(node, index, (g, new), self._atom_of[c])
        if not any_child:
            self._weights[c] += 1

    def _branched(self, choices: _Choices, unserved: Bools, weights: Floats, latency_us: int) -> int:
        """Return which row is branched on: few devices may take its class, for its weight, and with least room."""
        classes = self._class_of[choices.rows]
        num_choices = choices.may_take.sum(axis=0) + choices.idle_may_take.sum(axis=0)
        by_weight = np.where(unserved, num_choices / weights[classes], np.inf)
        room = np.where(choices.may_take, choices.wider_us / latency_us, 1.05).sum(axis=0)
        room += np.minimum(self._single_us[:, classes].min(axis=0) / latency_us, NEVER)
        return int(np.lexsort((-room, by_weight))[0])

    def _class_sets(self, node: _Node, bounds: Sequence[DeviceBounds], choices: _Choices) -> list[ClassSet]:
        """Return the class sets of a node's devices, with what they serve beside: each class where most is to spare."""
        served = [set(classes) for _, classes in node.devices]
        for i, r in enumerate(choices.rows.tolist()):
            c = int(self._class_of[r])
            able = np.flatnonzero(choices.served[:, i]).tolist()
            able.sort(key=lambda d: -float(bounds[d].spare[c]))
            for d in able[: int(node.lacking[r])]:
                served[d].add(c)
        pairs = zip(bounds, served, strict=True)
        return [ClassSet(b.option, tuple(sorted(classes))) for b, classes in pairs]
