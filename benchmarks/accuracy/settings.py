"""Settings of the comparison: every number on which the page's figures depend."""

from dataclasses import dataclass
from fractions import Fraction

from benchmarks.accuracy.subjects import CIFAR, DIGITS, FASHION
from planner.profiler.device.probe_design import NUM_NETWORKS

SUBJECTS = (DIGITS, FASHION, CIFAR)

# Latency limits, as shares of the whole model's time on the fastest device.
LIMIT = Fraction(1, 3)
SWEEP = (Fraction(2, 3), Fraction(1, 2), LIMIT, Fraction(1, 6), Fraction(1, 9))
MAIN_FLEET = "equal-4"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Budget:
    """Effort of training and planning, the same for every row; the names are part of the cache keys."""

    # Epochs of each sub-model.
    epochs: int
    # Maximum of training images of each class; None for all.
    per_class: int | None
    # Number of floor levels, over which ours is found by bisection, and the time limit for each [s].
    levels: int = 32
    level_seconds: float = 2.0
    # Number of probes for the latency table.
    networks: int = NUM_NETWORKS


BUDGETS = {DIGITS: Budget(20, None), FASHION: Budget(2, 2000), CIFAR: Budget(2, 2500)}
SMALL = Budget(2, 60, levels=8, level_seconds=2.0, networks=16)
# Floors by the number of classes on a device, from digits' trial plans at a drop of 2 points.
BY_COUNT = (0.499, 0.576, 0.625, 0.662, 0.692, 0.716, 0.738, 0.759, 0.778, 0.796)
# Images of each class, for the importance.
IMPORTANCE_IMAGES = 300

# Targets: points below the whole model at `LIMIT`, points above the baselines there, share of their latency.
NEAR_POINTS, AHEAD_POINTS, SHARE_OF_LATENCY = 1.0, 2.0, 0.7
