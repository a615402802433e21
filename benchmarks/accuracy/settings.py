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
    # Time limit of the solver for each of our plans [s].
    solve_seconds: float = 30.0
    # Number of probes for the latency table.
    networks: int = NUM_NETWORKS


BUDGETS = {DIGITS: Budget(20, None), FASHION: Budget(2, 2000), CIFAR: Budget(2, 2500)}
SMALL = Budget(1, 30, solve_seconds=5.0, networks=14)
# Images of each class, for the importance, and minutes of a profile.
IMPORTANCE_IMAGES, PROFILE_MINUTES = 300, 60.0

# Targets: points below the whole model at `LIMIT`, points above the baselines there, share of their latency.
NEAR_POINTS, AHEAD_POINTS, SHARE_OF_LATENCY = 1.0, 2.0, 0.7
