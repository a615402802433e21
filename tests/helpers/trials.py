"""Trial plans whose losses a known model made: the oracle of fits, which shares no code with the planner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.profiler.accuracy_model import Evidence
from planner.profiler.trial_designs import TrialDevice, UnitChoice
from planner.profiler.trial_plans import TrialPlan

Floats = NDArray[np.float64]
CHOICES: tuple[UnitChoice, ...] = ("own", "all", "lacking")


@dataclass(frozen=True)
class Truth:
    """A model of losses at a full width of 64 and narrower ones, and the images on which errors are counted."""

    num_classes: int
    images_per_class: int
    log_scale: float = -2.2
    steepness: float = 1.1
    norm_order: float = 1.3
    union_weight: float = 0.4
    retention_exponent: float = 0.5
    # Exponents of what the narrower widths retain.
    embed_exponents: tuple[tuple[int, float], ...] = ((32, 1.3),)
    offset_deviation: float = 0.3
    whole_error: float = 0.05
    # What the narrowest width retains right after recovery in closed form.
    narrow: float = 0.9
    # Deviation of the logarithm of a plan's losses around the model, and of the errors that images change by chance.
    spread: float = 0.15
    swapped: float = 0.01
    num_units: int = 40

    @property
    def rho(self) -> dict[int, Floats]:
        """What widths retain right after recovery in closed form, (C,) each: in even steps down to the narrowest."""
        widths = [64, *(e for e, _ in self.embed_exponents)]
        shares = np.linspace(1, self.narrow, len(widths))
        return {e: np.full(self.num_classes, share) for e, share in zip(widths, shares, strict=True)}

    @cached_property
    def shares(self) -> Floats:
        """Share of each unit in the importance of each class, (C, U): much the same for all classes."""
        rng = np.random.default_rng(11)
        importance = rng.lognormal(0, 0.5, self.num_units) * rng.lognormal(0, 0.2, (self.num_classes, self.num_units))
        return np.asarray(importance / importance.sum(axis=1, keepdims=True))

    def losses(self, retained: Floats, union: Floats) -> Floats:
        """Return the loss of each class at these retentions, by device (D, C) and together (C,)."""
        offsets = np.random.default_rng(7).normal(0, self.offset_deviation, self.num_classes)
        odds, of_all = (r**self.retention_exponent / np.maximum(1 - r, 1e-9) for r in (retained, union))
        z = np.exp(self.log_scale + offsets - offsets.mean())
        z = z * ((odds**self.norm_order).sum(axis=0) ** (-1 / self.norm_order) + self.union_weight / of_all) ** (
            self.steepness
        )
        return np.asarray((1 - self.whole_error) * z / (1 - self.whole_error + z))

    def retained(self, trial: TrialPlan, fitted: Mapping[int, Sequence[float]] | None = None) -> tuple[Floats, Floats]:
        """Return what a trial plan retains, by device (D, C) and together (C,).

        Args:
            trial: Trial plan.
            fitted: Retention of each class at each width by a fit; the true one unless given.
        """
        if fitted is None:
            exponents = {64: 1.0, **dict(self.embed_exponents)}
            fitted = {e: (share ** exponents[e]).tolist() for e, share in self.rho.items()}
        of_width = [np.array(fitted[d.embed_dim]) for d in trial.devices]
        rows, union = [], np.zeros(self.num_units)
        for kept, left in zip(trial.kept_units, of_width, strict=True):
            rows.append(sum(self.shares[:, u] for u in kept) * left)
            for u in kept:
                union[u] = max(union[u], left.mean())
        by_device = np.minimum(1.0, np.array(rows).reshape(len(rows), self.num_classes))
        return by_device, np.minimum(1.0, np.maximum(self.shares @ union, by_device.max(axis=0)))

    def loss(self, trial: TrialPlan) -> float:
        """Return the expected loss of a trial plan: the mean over images, which are as many of each class."""
        return float(self.losses(*self.retained(trial)).mean())

    def evidence(self, trials: list[TrialPlan]) -> Evidence:
        """Return what the accuracy model is fitted to."""
        images = np.full(self.num_classes, float(self.images_per_class))
        return Evidence(trials, self.shares, self.rho, images, np.round(self.whole_error * images), 10.0)

    def trials(self, count: int, seed: int, exact: bool = False) -> list[TrialPlan]:
        """Return trial plans of one to six devices, with errors of chance unless exact."""
        rng = np.random.default_rng(seed)
        return [self._trial(p, rng, exact) for p in range(count)]

    def _trial(self, p: int, rng: np.random.Generator, exact: bool) -> TrialPlan:
        C, images = self.num_classes, self.images_per_class
        parts = np.array_split(rng.permutation(C), min(C, (2, 1, 4, 3, 6)[p % 5]))
        numbers = np.full(len(parts), rng.uniform(0.1, 0.95)) if p % 2 else rng.uniform(0.1, 0.95, len(parts))
        order, choice = rng.permutation(self.num_units), CHOICES[p % 3]
        units, first = [], 0
        for number in np.ceil(numbers * self.num_units).astype(int).tolist():
            if choice == "own":
                order = rng.permutation(self.num_units)
            units.append(np.roll(order, -first)[:number].tolist())
            first += number if choice == "lacking" else 0
        devices = tuple(
            TrialDevice(
                classes=tuple(sorted(part.tolist())),
                embed_dim=int(rng.choice(list(self.rho))),
                share=0.5,
                choice=choice,
            )
            for part in parts
        )
        bare = trial_of(devices, units, np.zeros(C), 0, 0)
        lost = self.losses(*self.retained(bare)) * images
        gained = np.zeros(C)
        if not exact:
            swaps = rng.poisson(self.swapped * images, (2, C))
            lost, gained = rng.poisson(lost * np.exp(self.spread * rng.normal())) + swaps[0], swaps[1]
        errors = np.maximum(0, np.round(self.whole_error * images) + lost - gained)
        return trial_of(devices, units, errors, int(lost.sum().round()), int(gained.sum()))


def trial_of(
    devices: tuple[TrialDevice, ...], units: Sequence[Sequence[int]], errors: Floats, num_lost: int, num_gained: int
) -> TrialPlan:
    """Return a trial plan as it is recorded."""
    return TrialPlan(
        devices=devices,
        kept_units=tuple(tuple(sorted(kept)) for kept in units),
        errors=tuple(int(e) for e in np.round(errors)),
        num_lost=num_lost,
        num_gained=num_gained,
    )


def made_trial(setting: object, devices: tuple[TrialDevice, ...]) -> TrialPlan:
    """Return a trial plan as if it had been executed: the less its devices keep, the more of 100 images it loses."""
    num_classes = sum(len(device.classes) for device in devices)
    kept = np.array(
        [[device.share * (1 if c in device.classes else 0.7) for c in range(num_classes)] for device in devices]
    )
    lost = np.round(30 * (1 - kept.max(axis=0)) ** 2 + sum(len(device.classes) ** 2 for device in devices) % 3)
    units = [range(round(8 * device.share)) for device in devices]
    return trial_of(devices, units, 1 + lost, int(lost.sum()), 0)
