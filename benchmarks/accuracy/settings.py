"""What is compared, and how long things take: every number that the page's figures hang on."""

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
    """How thoroughly sub-models are trained: the same for every row."""

    # Each sub-model sees so many times as many images as there are.
    epochs: int
    # Training images of each class at most; None: all.
    per_class: int | None
    # Ours is solved at levels of floors, of so many, halving what is open, each for so long at most [s].
    levels: int = 32
    level_seconds: float = 2.0
    # Timed for the latency table.
    networks: int = NUM_NETWORKS


BUDGETS = {DIGITS: Budget(20, None), FASHION: Budget(2, 2000), CIFAR: Budget(2, 2500)}
SMALL = Budget(2, 60, levels=8, level_seconds=2.0, networks=16)
# How floors rise with the number of classes on a device: of digits' recovery probes, at a drop of 2 points.
BY_COUNT = (0.499, 0.576, 0.625, 0.662, 0.692, 0.716, 0.738, 0.759, 0.778, 0.796)
# Of each class, for the importance.
IMPORTANCE_IMAGES = 300

# Targets: points below the whole model at `LIMIT`, points above the yardsticks there, share of their latency.
NEAR_POINTS, AHEAD_POINTS, SHARE_OF_LATENCY = 1.0, 2.0, 0.7
