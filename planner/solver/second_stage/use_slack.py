"""Second objective: where the first is settled, the highest predicted accuracy.

A device that is not the bottleneck has time to spare, and an idle one may have all of it. Whatever finishes in time
helps the fusion, whether its classes are served there or not. A local search fills one device after the other, each
with the units of most value: the predicted loss that a little more retention of a class would save, given what the
other devices retain. Class subsets follow: a device serves, of the classes whose floors it meets, those that only it
serves, and all others that demands allow. The first objective is never touched: its proof stands. Where energy is
limited or minimised, no unit is free, and nothing is changed.

Legend: C classes, D devices, U units.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from planner.arrays import Bools, Floats
from planner.rules.accuracy import class_losses
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import EMBED_DIMS, IMPORTANCE_SCALE, Instance
from planner.solver.problem.option import Option, PlacedSubModel
from planner.solver.problem.retained import retained, retained_by, search_model
from planner.solver.second_stage.fill import fill

# Passes over all devices, and the gain of a change that is worth another pass [share of images].
_MAX_PASSES, _MIN_GAIN = 4, 1e-6
# Values are slopes of the loss over this much retention.
_STEP = 1e-3
# Fillings in which a class that falls short of its floor counts twice as much as before.
_ROUNDS = 5
_EVEN_RETENTION = 0.5
# Weight of the loss without a device beside that with all.
_NEGLIGIBLE = 1e-3


def use_slack(
    instance: Instance,
    placed: Sequence[PlacedSubModel],
    clock: Clock,
    stays: Sequence[PlacedSubModel] = (),
    stretch: float = 0.0,
) -> tuple[PlacedSubModel, ...]:
    """Return a placement with the same objective whose predicted accuracy is as high as the search finds.

    The sub-models that were placed come first, in their order, then those of devices that were idle.

    Args:
        instance: Problem.
        placed: Placement of a plan.
        clock: Time for it; out of time, the rest is left as it is.
        stays: Sub-models of the plan that are left as they are.
        stretch: Share by which the latency may rise, so that idle devices can help where they share a medium.
    """
    goal = instance.goal
    if goal.objective == "energy" or goal.max_energy_mj is not None:
        return tuple(placed)
    latency_us = int((1 + stretch) * instance.fleet_latency_us(placed))
    if goal.objective == "accuracy" and goal.max_latency_us is not None:
        latency_us = max(latency_us, goal.max_latency_us)
    search = _Search(instance, placed, latency_us, stays)
    may_add = not goal.leave_idle and goal.objective != "devices"
    for _ in range(_MAX_PASSES):
        before = search.loss
        search.improve_used(clock)
        if may_add:
            search.use_idle(clock)
        if clock.expired() or before - search.loss < _MIN_GAIN:
            break
    return tuple(search.placed)


class _Search:
    """Local search within a latency."""

    def __init__(
        self, instance: Instance, placed: Sequence[PlacedSubModel], latency_us: int, stays: Sequence[PlacedSubModel]
    ) -> None:
        self.instance, self.latency_us, self.stays = instance, latency_us, stays
        self.model = search_model(instance.profile)
        self.share = np.array(self.model.class_share)
        self.placed = list(placed)
        self.retained = retained(instance, placed)  # (D, C)
        self.loss = self._loss(self.retained)

    def _loss(self, rows: Floats) -> float:
        """Return the predicted loss; of equal losses, that is lower whose worst loss without a device is lower."""
        without = [class_losses(self.model, np.delete(rows, d, axis=0)) @ self.share for d in range(len(rows))]
        worst = max(without) if len(rows) > 1 else 1.0
        return float(class_losses(self.model, rows) @ self.share) + _NEGLIGIBLE * float(worst)

    def improve_used(self, clock: Clock) -> None:
        """Refill each used device, at any of its embed dims, where that lowers the loss."""
        for i, p in enumerate(self.placed):
            if p in self.stays:
                continue
            others, rows = [*self.placed[:i], *self.placed[i + 1 :]], np.delete(self.retained, i, axis=0)
            required = self._only_served_by(others, p.classes)
            for option in self._options_of(p.option.group):
                if clock.expired():
                    return
                self._try(others, rows, option, required, i, self.retained[i])

    def use_idle(self, clock: Clock) -> None:
        """Give idle devices sub-models, each at the embed dim that lowers the loss most."""
        for group, devices in enumerate(self.instance.groups):
            while sum(p.option.group == group for p in self.placed) < len(devices.names):
                before = self.loss
                others, rows = list(self.placed), self.retained
                for option in self._options_of(group):
                    for required in self._subsets(rows):
                        if clock.expired():
                            return
                        self._try(others, rows, option, required, len(others), None)
                if self.loss > before - _MIN_GAIN:
                    break

    def _options_of(self, group: int) -> list[Option]:
        return [option for option in self.instance.options if option.group == group]

    def _subsets(self, rows: Floats) -> Iterator[tuple[int, ...]]:
        """Yield class subsets for an idle device: none in particular, then ever fewer of those that lose most."""
        yield ()
        by_loss = np.argsort(-class_losses(self.model, rows), kind="stable").tolist()
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

    def _try(
        self,
        others: Sequence[PlacedSubModel],
        rows: Floats,
        option: Option,
        required: Sequence[int],
        position: int,
        now: Floats | None,
    ) -> None:
        """Fill an option beside other devices, and take it where the loss is lower.

        Args:
            others: All other used devices.
            rows: Their retentions, (D - 1, C).
            option: Device group at an embed dim and a precision.
            required: Classes that it must serve.
            position: Place of the device among all.
            now: What the device retains today, (C,), if it is used.
        """
        instance = self.instance
        used = instance.used([*(p.option for p in others), option])
        # The others may not become slower than allowed either.
        fusion_us = instance.fusion_us(int(used[EMBED_DIMS]))
        bottleneck_us = self.latency_us - fusion_us
        if any(
            instance.path_us(p.option, used) + instance.compute_us(p.option, p.kept) > bottleneck_us for p in others
        ):
            return
        compute_us = bottleneck_us - instance.path_us(option, used)
        start = np.full(instance.num_classes, _EVEN_RETENTION) if now is None else now
        for kept in self._fillings(rows, option, required, compute_us, start):
            classes = self._classes(option, required, kept)
            if not classes:
                continue
            row = retained_by(instance, option, kept)
            found = np.insert(rows, position, row, axis=0)
            if (loss := self._loss(found)) < self.loss:
                sub_model = PlacedSubModel(option, classes, tuple(np.flatnonzero(kept).tolist()))
                self.placed = [*others[:position], sub_model, *others[position:]]
                self.retained, self.loss = found, loss

    def _fillings(
        self, rows: Floats, option: Option, required: Sequence[int], compute_us: int, start: Floats
    ) -> Iterator[Bools]:
        """Yield fillings that meet the floors of required classes, each valued at what the last one retains."""
        units, at = self.instance.units, start
        for _ in range(2):
            values = (self._slopes(rows, at) * np.array(option.width_cost.max_retention)) @ units.shares
            kept = self._meeting_floors(option, required, values, compute_us)
            if kept is None:
                return
            yield kept
            at = retained_by(self.instance, option, kept)

    def _slopes(self, rows: Floats, at: Floats) -> Floats:
        """Return the loss that a little more retention of each class saves on a device that retains so much, (C,)."""
        less, more = (np.vstack([rows, np.clip(at + step, 0, 1 - _STEP)]) for step in (0.0, _STEP))
        saved = class_losses(self.model, less) - class_losses(self.model, more)
        # Where a class loses nothing any more, what is free is kept none the less.
        return np.asarray(np.maximum(saved * self.share, 0.0) / _STEP + 1e-9)

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
        """Return the classes that kept units serve: the required ones, and all others where demands allow that."""
        instance, chosen = self.instance, np.flatnonzero(kept).tolist()
        num_classes = instance.num_classes
        have = instance.units.importance @ kept
        everyone = tuple(c for c in range(num_classes) if c in required or have[c] >= option.need[c, num_classes - 1])
        for classes in (everyone, tuple(required)):
            if not classes or not instance.allows(option.group, classes):
                continue
            if instance.meets_floors(option, classes, chosen):
                return classes
        return ()
