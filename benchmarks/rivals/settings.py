"""Settings of the comparison: every number on which the page's figures depend."""

from dataclasses import dataclass

from benchmarks.accuracy.settings import BUDGETS, SMALL, Budget
from benchmarks.accuracy.subjects import DIGITS, FASHION

# A network whose filters are pruned by class is so many times as wide as what is left of it.
PRUNED_FROM = 2
# Time steps of spiking networks: the fewest at which a membrane keeps anything.
STEPS = 2
WIDTHS = (2, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64)
LEARNING_RATE, RETRAINING_RATE = 2e-3, 1e-3


@dataclass(frozen=True)
class Effort:
    """Effort of a run; the names are part of the cache keys."""

    subject: str
    # Epochs of a convolutional network from scratch, and of one that is wider, to be pruned.
    epochs: int
    wide_epochs: int
    # Training images of each class from scratch; None for all.
    per_class: int | None
    # Of the ViT's sub-models and of the convolutional ones alike.
    retraining: Budget
    # Of each class, by which filters are ranked.
    importance_images: int = 100
    widths: tuple[int, ...] = WIDTHS
    # Of the last measurement, and of the search for a width.
    rounds: int = 30
    search_rounds: int = 15
    seed: int = 0


FULL = Effort(FASHION, 4, 2, None, BUDGETS[FASHION])
SHORT = Effort(DIGITS, 1, 1, 30, SMALL, importance_images=5, widths=(2, 4), rounds=2, search_rounds=1)
