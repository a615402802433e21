"""Trial plans whose losses a known model made: the oracle of fits, which shares no code with the planner."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.profiler.accuracy_model import Evidence
from planner.profiler.trial_designs import TrialDevice
from planner.profiler.trial_plans import TrialPlan

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """A model of losses, and the images on which errors are counted."""

    num_classes: int
    images_per_class: int
    log_scale: float = -2.2
    steepness: float = 1.1
    norm_order: float = 1.3
    retention_exponent: float = 0.5
    embed_exponent: float = 1.3
    offset_deviation: float = 0.3
    whole_error: float = 0.05
    # Deviation of the logarithm of a plan's losses around the model, and of the errors that images change by chance.
    spread: float = 0.15
    swapped: float = 0.01

    @property
    def rho(self) -> dict[int, Floats]:
        """What the two widths retain right after recovery in closed form, (C,) each."""
        return {64: np.ones(self.num_classes), 32: np.full(self.num_classes, 0.9)}

    def losses(self, retained: Floats) -> Floats:
        """Return the loss of each class at these retentions (D, C), of heads, channels and embed dims together."""
        offsets = np.random.default_rng(7).normal(0, self.offset_deviation, self.num_classes)
        odds = retained**self.retention_exponent / np.maximum(1 - retained, 1e-9)
        z = np.exp(self.log_scale + offsets - offsets.mean())
        z = z * (odds**self.norm_order).sum(axis=0) ** (-self.steepness / self.norm_order)
        return np.asarray((1 - self.whole_error) * z / (1 - self.whole_error + z))

    def retained(self, trial: TrialPlan, embed_exponent: float | None = None) -> Floats:
        """Return what the devices of a trial plan retain, (D, C)."""
        g = self.embed_exponent if embed_exponent is None else embed_exponent
        return np.asarray(np.array(trial.unit_retention) * [self.rho[d.embed_dim] ** g for d in trial.devices])

    def loss(self, trial: TrialPlan) -> float:
        """Return the expected loss of a trial plan: the mean over images, which are as many of each class."""
        return float(self.losses(self.retained(trial)).mean())

    def evidence(self, trials: list[TrialPlan]) -> Evidence:
        """Return what the accuracy model is fitted to."""
        images = np.full(self.num_classes, float(self.images_per_class))
        return Evidence(trials, self.rho, images, np.round(self.whole_error * images), 10.0)

    def trials(self, count: int, seed: int, exact: bool = False) -> list[TrialPlan]:
        """Return trial plans of one to six devices, with errors of chance unless exact."""
        rng = np.random.default_rng(seed)
        return [self._trial(p, rng, exact) for p in range(count)]

    def _trial(self, p: int, rng: np.random.Generator, exact: bool) -> TrialPlan:
        C, images = self.num_classes, self.images_per_class
        parts = np.array_split(rng.permutation(C), min(C, (2, 1, 4, 3, 6)[p % 5]))
        units = rng.uniform(0.1, 0.98, 1 if p % 2 else len(parts))[:, None] * rng.uniform(0.9, 1.02, (len(parts), C))
        devices = tuple(
            TrialDevice(classes=tuple(sorted(part.tolist())), embed_dim=int(rng.choice([64, 32])), share=0.5)
            for part in parts
        )
        bare = trial_of(devices, np.minimum(units, 0.99), np.zeros(C), 0, 0)
        lost = self.losses(self.retained(bare)) * images
        gained = np.zeros(C)
        if not exact:
            swaps = rng.poisson(self.swapped * images, (2, C))
            lost, gained = rng.poisson(lost * np.exp(self.spread * rng.normal())) + swaps[0], swaps[1]
        errors = np.maximum(0, np.round(self.whole_error * images) + lost - gained)
        return trial_of(devices, np.minimum(units, 0.99), errors, int(lost.sum().round()), int(gained.sum()))


def trial_of(
    devices: tuple[TrialDevice, ...], units: Floats, errors: Floats, num_lost: int, num_gained: int
) -> TrialPlan:
    """Return a trial plan as it is recorded."""
    return TrialPlan(
        devices=devices,
        unit_retention=tuple(map(tuple, units.tolist())),
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
    return trial_of(devices, kept, 1 + lost, int(lost.sum()), 0)
