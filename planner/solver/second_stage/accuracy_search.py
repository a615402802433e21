"""Local search for the highest predicted accuracy within a latency.

One device after the other is filled with the units of most value: the predicted loss that a little more retention of a
class would save, on this device and by all together, given what the other devices keep. Class subsets follow: a device
may serve the classes whose floors it meets. At the end single units are exchanged, as the loss itself says, and each
class is dealt to no more devices than it must be on.

Legend: C classes, D devices, U units.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.rules.accuracy import class_losses
from planner.rules.retention import FleetRetention
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import EMBED_DIMS, IMPORTANCE_SCALE, Instance
from planner.solver.problem.option import Option, PlacedSubModel
from planner.solver.problem.retained import FleetUnits, search_model
from planner.solver.second_stage.fill import fill, neighbours
from planner.solver.second_stage.specialise import specialised

# Passes over all devices, and the gain of a change that is worth another pass [share of images].
_MAX_PASSES, _MIN_GAIN = 4, 1e-6
# Values are slopes of the loss over this much retention.
_STEP = 1e-3
# Fillings in which a class that falls short of its floor counts twice as much as before.
_ROUNDS = 5
_EVEN_RETENTION = 0.5
# Weight of the loss without a device beside that with all.
_NEGLIGIBLE = 1e-5
# Exchanges of a device's units one after the other, and those of an attempt that are tried for their floors.
_MAX_EXCHANGES, _MAX_TAKEN = 8, 3
# Of more devices than these, one more or less hardly matters, and to compare takes long.
_MAX_COMPARED = 64


@dataclass(frozen=True, eq=False)
class _Place:
    """A device's place among all: the other used devices and their units, and what it must serve."""

    others: Sequence[PlacedSubModel]
    rest: FleetUnits
    position: int
    required: tuple[int, ...]


class AccuracySearch:
    """Local search from a placement.

    Args:
        instance: Problem.
        placed: Placement to begin with.
        latency_us: Largest latency of the fleet [us].
        stays: Sub-models that are left as they are.
    """

    def __init__(
        self,
        instance: Instance,
        placed: Sequence[PlacedSubModel],
        latency_us: int,
        stays: Sequence[PlacedSubModel] = (),
    ) -> None:
        self.instance, self.latency_us, self.stays = instance, latency_us, stays
        self.model = search_model(instance.profile)
        self.share = np.array(self.model.class_share)
        self.placed = list(placed)
        self.kept = FleetUnits.of(instance, placed)
        self.loss = self._loss(self.kept)

    def _loss(self, kept: FleetUnits) -> float:
        """Return the predicted loss; of equal losses, that is lower whose worst loss without a device is lower."""
        loss, num_devices = float(class_losses(self.model, kept.retention) @ self.share), len(kept.rows)
        if num_devices > _MAX_COMPARED:
            return loss
        worst = (class_losses(self.model, kept.without_each) @ self.share).max() if num_devices > 1 else 1.0
        return loss + _NEGLIGIBLE * float(worst)

    def run(self, clock: Clock) -> None:
        """Refill used devices and use idle ones, where the goal allows that, until nothing helps; deal classes out."""
        goal = self.instance.goal
        may_add = not goal.leave_idle and goal.objective != "devices"
        for _ in range(_MAX_PASSES):
            before = self.loss
            self._improve_used(clock)
            if may_add:
                self._use_idle(clock)
            if clock.expired() or before - self.loss < _MIN_GAIN:
                break
        self._exchange_units(clock)
        self.placed = list(specialised(self.instance, self.placed, self.stays))

    def shrink(self, clock: Clock) -> bool:
        """Refill the devices that are too slow, or do without them; return whether all finish in time then."""
        for _ in range(2 * len(self.placed)):
            slow = self._slowest_beyond()
            if slow is None:
                return True
            group, place, now = self.placed[slow].option.group, self._place_of(slow), self._state_of(slow)
            self.loss = np.inf
            for option in self._options_of(group):
                if clock.expired():
                    return False
                self._try(place, option, now, beside_slow=True)
            if np.isinf(self.loss):
                if place.required or self.instance.groups[group].pinned:
                    return False
                self.placed, self.kept = list(place.others), place.rest
                self.loss = self._loss(place.rest)
        return self._slowest_beyond() is None

    def _slowest_beyond(self) -> int | None:
        """Return the device that is furthest beyond the latency, if any is."""
        instance = self.instance
        used = instance.used(p.option for p in self.placed)
        bottleneck_us = self._bottleneck_us(used)
        times = [instance.path_us(p.option, used) + instance.compute_us(p.option, p.kept) for p in self.placed]
        slowest = int(np.argmax(times))
        return slowest if times[slowest] > bottleneck_us else None

    def _bottleneck_us(self, used: Ints) -> int:
        """Return the time that the slowest device may take before the fusion, if devices use these resources (R,)."""
        return self.latency_us - self.instance.fusion_us(int(used[EMBED_DIMS]))

    def _improve_used(self, clock: Clock) -> None:
        """Refill each used device, at any of its embed dims, where that lowers the loss."""
        for i, p in enumerate(self.placed):
            if p in self.stays:
                continue
            place = self._place_of(i)
            for option in self._options_of(p.option.group):
                if clock.expired():
                    return
                self._try(place, option, self._state_of(i))

    def _use_idle(self, clock: Clock) -> None:
        """Give idle devices sub-models, each at the embed dim that lowers the loss most."""
        for group, devices in enumerate(self.instance.groups):
            while sum(p.option.group == group for p in self.placed) < len(devices.names):
                before = self.loss
                others, rest = list(self.placed), self.kept
                for option in self._options_of(group):
                    for required in self._subsets(rest, group):
                        if clock.expired():
                            return
                        self._try(_Place(others, rest, len(others), required), option, self._even_state())
                if self.loss > before - _MIN_GAIN:
                    break

    def _exchange_units(self, clock: Clock) -> None:
        """Exchange single units of a device where the loss, which is not linear in them, gets lower."""
        instance = self.instance
        used = instance.used(p.option for p in self.placed)
        for i, p in enumerate(self.placed):
            if p in self.stays:
                continue
            place, compute_us = self._place_of(i), self._bottleneck_us(used) - instance.path_us(p.option, used)
            for _ in range(_MAX_EXCHANGES):
                if clock.expired():
                    return
                before, values = self.loss, self._values(place.rest, p.option, *self._state_of(i))
                kept = self.kept.weights[i] > 0
                sets = neighbours(p.option, instance.units, values, compute_us, kept)
                losses = [self._loss(place.rest.with_device(i, p.option, kept)) for kept in sets]
                for best in np.argsort(losses, kind="stable")[:_MAX_TAKEN]:
                    self._take(place, p.option, sets[best])
                if self.loss > before - _MIN_GAIN:
                    break

    def _place_of(self, device: int) -> _Place:
        """Return the place of a used device."""
        others = [*self.placed[:device], *self.placed[device + 1 :]]
        required = self._only_served_by(others, self.placed[device].classes)
        return _Place(others, self.kept.without(device), device, required)

    def _options_of(self, group: int) -> list[Option]:
        return [option for option in self.instance.options if option.group == group]

    def _state_of(self, device: int) -> tuple[Floats, Floats]:
        """Return the retention of each class by a device, and by all together, (C,) each."""
        return self.kept.rows[device], self.kept.retention.union

    def _even_state(self) -> tuple[Floats, Floats]:
        """Return such a state for a device that is idle as yet."""
        even = np.full(self.instance.num_classes, _EVEN_RETENTION)
        return even, np.maximum(even, self.kept.retention.union)

    def _subsets(self, rest: FleetUnits, group: int) -> Iterator[tuple[int, ...]]:
        """Yield class subsets for an idle device: none in particular, then ever fewer of those that lose most."""
        yield ()
        forbidden = self.instance.groups[group].forbidden
        by_loss = np.argsort(-class_losses(self.model, rest.retention), kind="stable").tolist()
        by_loss = [c for c in by_loss if c not in forbidden]
        size = len(by_loss)
        while size:
            yield tuple(sorted(by_loss[:size]))
            size //= 2

    def _only_served_by(self, others: Sequence[PlacedSubModel], classes: Sequence[int]) -> tuple[int, ...]:
        """Return the classes that other devices alone would not serve often enough."""
        return tuple(
            c
            for c in classes
            if any(
                sum(p.option.group in rule.groups and c in p.classes for p in others) < rule.min_devices
                for rule in self.instance.survival_rules
            )
        )

    def _try(self, place: _Place, option: Option, now: tuple[Floats, Floats], beside_slow: bool = False) -> None:
        """Fill an option beside other devices, and take it where the loss is lower.

        Args:
            place: Place of the device.
            option: Device group at an embed dim and a precision.
            now: Retention of each class by the device and by all together, (C,) each, to begin with.
            beside_slow: True if the others may be too slow as yet.
        """
        instance = self.instance
        used = instance.used([*(p.option for p in place.others), option])
        bottleneck_us = self._bottleneck_us(used)
        times = (instance.path_us(p.option, used) + instance.compute_us(p.option, p.kept) for p in place.others)
        # The others may not become slower than allowed either.
        if not beside_slow and any(us > bottleneck_us for us in times):
            return
        compute_us = bottleneck_us - instance.path_us(option, used)
        for kept in self._fillings(place, option, compute_us, now):
            self._take(place, option, kept)

    def _take(self, place: _Place, option: Option, kept: Bools) -> None:
        """Take kept units (U,) where they meet the floors of the required classes and the loss is lower."""
        classes = self._classes(option, place.required, kept)
        if not classes:
            return
        others, position = place.others, place.position
        found = place.rest.with_device(position, option, kept)
        if (loss := self._loss(found)) < self.loss:
            sub_model = PlacedSubModel(option, classes, tuple(np.flatnonzero(kept).tolist()))
            self.placed = [*others[:position], sub_model, *others[position:]]
            self.kept, self.loss = found, loss

    def _fillings(
        self, place: _Place, option: Option, compute_us: int, start: tuple[Floats, Floats]
    ) -> Iterator[Bools]:
        """Yield fillings that meet the floors of required classes, each valued at what the last one retains."""
        at = start
        for _ in range(2):
            values = self._values(place.rest, option, *at)
            kept = self._meeting_floors(option, place.required, values, compute_us)
            if kept is None:
                return
            yield kept
            found = place.rest.with_device(0, option, kept)
            at = found.rows[0], found.retention.union

    def _values(self, rest: FleetUnits, option: Option, row: Floats, union: Floats) -> Floats:
        """Return the loss that each unit would save on a device, (U,).

        Args:
            rest: Units of all other devices.
            option: Option of the device.
            row: Retention of each class by the device, at which losses are taken to be linear, (C,).
            union: Retention of each class by all devices together, likewise, (C,).
        """
        of_width = np.array(option.width_cost.max_retention)
        on_device, together = self._slopes(rest, row, union)
        others = rest.weights.max(axis=0, initial=0.0)
        of_device = (on_device * of_width) @ rest.shares
        return np.asarray(of_device + (together @ rest.shares) * np.maximum(0.0, of_width.mean() - others))

    def _slopes(self, rest: FleetUnits, row: Floats, union: Floats) -> tuple[Floats, Floats]:
        """Return the loss that a little more retention of each class saves, on a device and by all, (C,) each."""
        row, union = (np.clip(at, 0, 1 - 2 * _STEP) for at in (row, union))

        def losses(more_on_device: float, more_together: float) -> Floats:
            rows = np.vstack([rest.rows, row + more_on_device])
            return np.asarray(class_losses(self.model, FleetRetention(rows, union + more_together)) * self.share)

        now = losses(0.0, 0.0)
        on_device, together = (np.maximum(0.0, now - more) / _STEP for more in (losses(_STEP, 0.0), losses(0.0, _STEP)))
        # Where a class loses nothing any more, what is free is kept none the less.
        return on_device + 1e-9, together

    def _meeting_floors(self, option: Option, required: Sequence[int], values: Floats, compute_us: int) -> Bools | None:
        """Return a filling that meets the floors of required classes, or None where none is found."""
        units, wanted = self.instance.units, list(required)
        need = option.need[wanted, len(wanted) - 1] if wanted else np.zeros(0)
        weight = np.full(len(wanted), float(values.sum()) / max(1, len(wanted)))
        extra = np.zeros(len(values))
        for _ in range(_ROUNDS):
            kept = fill(option, units, values + extra, compute_us)
            if kept is None:
                return None
            short = units.importance[wanted] @ kept < need
            if not short.any():
                return kept
            extra = extra + (weight * short) @ (units.importance[wanted] / IMPORTANCE_SCALE)
            weight = weight * np.where(short, 2, 1)
        return None

    def _classes(self, option: Option, required: Sequence[int], kept: Bools) -> tuple[int, ...]:
        """Return the classes that kept units serve: the required ones, and all others that demands allow."""
        instance, chosen = self.instance, np.flatnonzero(kept).tolist()
        num_classes = instance.num_classes
        have = instance.units.importance @ kept
        everyone = [c for c in range(num_classes) if c in required or have[c] >= option.need[c, num_classes - 1]]
        for classes in (self._allowed_of(option.group, required, everyone), tuple(required)):
            if not classes or not set(required) <= set(classes) or not instance.allows(option.group, classes):
                continue
            if instance.meets_floors(option, classes, chosen):
                return classes
        return ()

    def _allowed_of(self, group: int, required: Sequence[int], classes: Sequence[int]) -> tuple[int, ...]:
        """Return classes without those that the demands rule out on a device of a group beside the required ones."""
        instance = self.instance
        chosen = set(classes) - instance.groups[group].forbidden
        for apart in instance.apart:
            first = min(apart.intersection(required) or apart & chosen, default=None)
            chosen -= apart - {first}
        # What goes with one set may belong to another.
        while broken := [together for together in instance.together if together & chosen and not together <= chosen]:
            chosen = chosen.difference(*broken)
        return tuple(sorted(chosen))
