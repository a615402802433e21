"""Designs of trial plans: how many devices, equal or not, how narrow, how alike, and how much they retain.

Each property takes all of its values about equally often, whatever the others are, so that what each contributes
to a loss can be told apart. How much is retained is chosen so that the predicted losses of all trial plans spread from
a fraction of a point to many, whatever the model: one may lose nothing at half of its units where another loses all.
The prediction is that of the trial plans so far. A plan that would take too long to try removes more.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from planner.arrays import Floats
from planner.rules.retention import FleetRetention
from planner.schema import Frozen

# Trial plans of a round are executed side by side; the next round's are designed after it.
ROUND_SIZE = 4

_DEVICE_COUNTS = (2, 1, 4, 3, 6)
# Losses that are aimed at, as shares of the whole model's accuracy, in an order in which any few are far apart.
_TARGET_LOSSES = (0.02, 0.1, 0.005, 0.05, 0.2, 0.01, 0.03)
# Range of the factors by which what unequal devices remove differs from the plan's.
_UNEQUAL_FACTORS = (0.5, 1.6)
_MIN_SHARE = 0.05
_BISECTION_STEPS = 20


# Units of a device are chosen for its own classes; for all classes, so that equal devices keep the same units; or for
# all classes, but first among those that no device before it keeps.
UnitChoice = Literal["own", "all", "lacking"]
_CHOICES: tuple[UnitChoice, ...] = ("own", "lacking", "all")


class TrialDevice(Frozen):
    """Device of a trial plan: the classes it serves, its embed dim, its share of their importance."""

    classes: tuple[int, ...]
    embed_dim: int
    share: float  # of heads and channels, without the embed dim
    choice: UnitChoice


def trial_design(
    number: int,
    rho: Mapping[int, Floats],
    relative_loss: Callable[[FleetRetention], float],
    is_affordable: Callable[[tuple[TrialDevice, ...]], bool],
    seed: int,
) -> tuple[TrialDevice, ...]:
    """Return the devices of one trial plan.

    Args:
        number: Its number among all trial plans, from 0.
        rho: Retention of each class at each embed dim when no unit is removed, (C,), the full width first.
        relative_loss: Predicted loss of a plan, as a share of the whole model's accuracy.
        is_affordable: Whether a trial plan takes no longer than one may; removing more makes it shorter.
        seed: For class subsets, widths and unequal shares.
    """
    rng = np.random.default_rng((seed, number))
    num_classes = len(next(iter(rho.values())))
    count = min(_DEVICE_COUNTS[number % len(_DEVICE_COUNTS)], num_classes)
    unequal = number // len(_DEVICE_COUNTS) % 2 == 1
    choice = _CHOICES[number % len(_CHOICES)]
    order = rng.permutation(num_classes)
    ends = np.linspace(0, num_classes, count + 1).round().astype(int)[1:-1]
    if unequal:
        ends = np.sort(rng.choice(np.arange(1, num_classes), count - 1, replace=False))
    # The full width twice as often as any other: most plans keep it.
    widths = (next(iter(rho)), *rho)
    # Equal fleets take the widths in turn: drawn, some dozen trial plans may say nothing of fleets of one width.
    turn = number // (2 * len(_DEVICE_COUNTS)) * len(_DEVICE_COUNTS) + number % len(_DEVICE_COUNTS)
    first = int(rng.integers(len(widths))) if unequal else turn % len(widths)
    of_devices = [widths[(first + d * unequal) % len(widths)] for d in range(count)]
    factors = rng.uniform(*_UNEQUAL_FACTORS, count) if unequal else np.ones(count)
    of_widths = np.array([rho[width] for width in of_devices])  # (D, C)

    def shares(removed: float) -> Floats:
        # What a narrow width lost is made up for by units, as a planner has to do.
        kept = np.maximum(of_widths.mean(axis=1), _MIN_SHARE)
        return np.asarray(np.clip((1 - removed * factors) / kept, _MIN_SHARE, 1.0))

    def devices(removed: float) -> tuple[TrialDevice, ...]:
        return tuple(
            TrialDevice(
                classes=tuple(sorted(classes.tolist())), embed_dim=width, share=round(float(share), 4), choice=choice
            )
            for classes, width, share in zip(np.split(order, ends), of_devices, shares(removed), strict=True)
        )

    target = _TARGET_LOSSES[number % len(_TARGET_LOSSES)]
    low, high = 0.0, 1 / factors.min()
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        lost = relative_loss(_expected_retention(shares(middle), of_widths, choice))
        too_little = lost < target or not is_affordable(devices(middle))
        low, high = (middle, high) if too_little else (low, middle)
    return devices(high)


def _expected_retention(shares: Floats, of_widths: Floats, choice: UnitChoice) -> FleetRetention:
    """Return what devices retain if units are of the same use for all classes.

    Args:
        shares: Share of units that each device keeps, (D,).
        of_widths: Retention of each class by a device that keeps all units, (D, C).
        choice: How units are chosen: the same ones, as many different ones as there are, or independent ones.
    """
    by_device = shares[:, None] * of_widths
    together = {"all": shares.max(), "lacking": min(1.0, shares.sum()), "own": 1 - np.prod(1 - shares)}[choice]
    return FleetRetention(by_device, np.maximum(by_device.max(axis=0), together * of_widths.max(axis=0)))
