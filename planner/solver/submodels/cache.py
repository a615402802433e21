"""Cache of sub-models for device groups and class subsets, built when first requested.

The cost of classes on a device depends on the device's group only, and local search requests the same ones often.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.submodels import knapsack
from planner.solver.submodels.lagrangian import LagrangianHeuristic
from planner.solver.submodels.relaxation import Relaxation, RelaxedSubModel

# Rough time of building one sub-model [s], where work is counted.
_BUILD_S = 5e-4
# Likewise of a relaxation.
_RELAXATION_S = 4e-3


@dataclass(frozen=True)
class CachedSubModel:
    """Best sub-model known for some classes on a group: latency [us] alone on its path, option, kept units."""

    latency_us: int
    option: int
    kept: bytes  # packed bits
    fullness: float  # of the fullest budget


_IDLE = CachedSubModel(0, -1, b"", 0.0)
_IMPOSSIBLE = CachedSubModel(NEVER, -1, b"", 1.0)


class SubModelCache:
    """Sub-models by group and class subset."""

    def __init__(self, instance: Instance, clock: Clock) -> None:
        self.instance, self._clock = instance, clock
        self._heuristics = [LagrangianHeuristic(instance, option) for option in instance.options]
        self.known: dict[tuple[int, tuple[int, ...]], CachedSubModel] = {}
        self._relaxations: dict[int, Relaxation] = {}
        self._polished: set[tuple[int, tuple[int, ...]]] = set()

    def sub_models(self, wanted: Sequence[tuple[int, tuple[int, ...]]]) -> list[CachedSubModel]:
        """Return the best sub-model for each (group, classes)."""
        new = sorted({key for key in wanted if key[1] and key not in self.known})
        self._clock.spend(_BUILD_S * len(new))
        for o, option in enumerate(self.instance.options):
            keys = [key for key in new if key[0] == option.group]
            if not keys:
                continue
            built = self._heuristics[o].build([classes for _, classes in keys])
            packed = np.packbits(built.kept, axis=1)
            rows = zip(keys, built.compute_us.tolist(), packed, built.fullness.tolist(), strict=True)
            for key, compute_us, kept, fullness in rows:
                latency_us = NEVER if compute_us >= NEVER else option.alone_us + compute_us
                if key not in self.known or latency_us < self.known[key].latency_us:
                    self.known[key] = CachedSubModel(latency_us, o, kept.tobytes(), fullness)
        return [self.known[key] if key[1] else _IDLE for key in wanted]

    def polish(self, o: int, classes: tuple[int, ...], max_s: float) -> None:
        """Look for a better sub-model near the relaxation by an exact search, which takes off the last percents.

        Args:
            o: Option, by its index.
            classes: Class subset.
            max_s: Time limit [s].
        """
        if (o, classes) in self._polished:
            return
        self._polished.add((o, classes))
        option, relaxed = self.instance.options[o], self.relaxed(o, classes)
        if relaxed is not None:
            kept = knapsack.cheapest_near(self.instance, option, classes, relaxed, self._clock, max_s)
            if kept is not None:
                self.improve(option.group, classes, o, kept)

    def relaxed(self, o: int, classes: tuple[int, ...]) -> RelaxedSubModel | None:
        """Return the relaxed sub-model of some classes on an option, by its index; None if there is none."""
        option = self.instance.options[o]
        if o not in self._relaxations:
            self._relaxations[o] = Relaxation(self.instance, option)
        self._clock.spend(_RELAXATION_S)
        return self._relaxations[o].relaxed(classes, option.need[:, len(classes) - 1] / IMPORTANCE_SCALE)

    def improve(self, group: int, classes: tuple[int, ...], option: int, kept: Iterable[int]) -> None:
        """Add a sub-model that was built elsewhere, if it is better than the known one."""
        at, units = self.instance.options[option], list(kept)
        latency_us = at.alone_us + self.instance.compute_us(at, units)
        if latency_us < self.known.get((group, classes), _IMPOSSIBLE).latency_us:
            chosen = np.zeros(len(self.instance.units), dtype=bool)
            chosen[units] = True
            fullness = self.instance.fullness(at, units)
            packed = np.packbits(chosen).tobytes()
            self.known[group, classes] = CachedSubModel(latency_us, option, packed, fullness)

    def reuse(self, group: int, classes: tuple[int, ...], of: tuple[int, ...]) -> None:
        """Take the sub-model of more classes for some of them, if that is better than the known one."""
        known = self.known.get((group, of), _IMPOSSIBLE)
        if known.latency_us < self.sub_models([(group, classes)])[0].latency_us:
            self.known[group, classes] = known

    def kept(self, sub_model: CachedSubModel) -> Bools:
        """Return the kept units of a sub-model, (U,)."""
        bits = np.unpackbits(np.frombuffer(sub_model.kept, dtype=np.uint8), count=len(self.instance.units))
        return bits.astype(bool)

    def placed(self, group: int, classes: tuple[int, ...]) -> PlacedSubModel:
        """Return a known sub-model as a part of a placement."""
        sub_model = self.known[group, classes]
        units = np.flatnonzero(self.kept(sub_model)).tolist()
        return PlacedSubModel(self.instance.options[sub_model.option], classes, tuple(units))
