"""Random sets of units that are removed from a model, and what each class loses by each.

Legend: C classes, L blocks, H heads, c hidden channels, E embed dims, S sets.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.importance.subjects import Subject
from planner.arrays import Floats
from planner.network.data import Jitter
from planner.network.distillation_data import DistillationData, make_distillation_data
from planner.network.evaluation import accuracy_by_class, apply_in_batches
from planner.network.losses import DistillationLoss
from planner.network.surgery import cut
from planner.network.training import Schedule, TrainingTask, train
from planner.network.vit import Shape, VisionTransformer
from planner.profiler import importance_shares
from planner.profiler.importance_sums import UnitImportance
from planner.schema.base import write_text

RETRAINED = "mixed, retrained"
# Shares of units that are removed, for each category of set; in mixed sets half that share of embed dims.
REMOVED_SHARES = {
    "heads": (0.125, 0.25, 0.375, 0.5),
    "channels": (0.125, 0.25, 0.5, 0.75),
    "embed dims": (0.0625, 0.125, 0.25, 0.5),
    "mixed": (0.125, 0.25, 0.375, 0.5),
    RETRAINED: (0.25, 0.5, 0.75),
}
SETS_PER_SIZE = 20
# Fewer sets and few epochs, since retraining is slow.
_RETRAINED_PER_SIZE = 10
_EPOCHS = {"digits": 3, "Fashion-MNIST": 1}
GROUP_SIZE = 8


@dataclass(frozen=True)
class KeptUnits:
    """Units that remain of each block, and embed dims that remain, when a set is removed."""

    heads: list[list[int]]
    channels: list[list[int]]
    embed_dims: list[int]


@dataclass(frozen=True)
class ClassLosses:
    """Losses of each class by each set, (S, C): of the true class's probability, and of accuracy."""

    probability: Floats
    accuracy: Floats


class ResultCache:
    """Results in a file, from which a stopped run continues."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path = path
        self.results: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not fresh else {}

    def result(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the result of a key, computed now unless it is cached."""
        if key not in self.results:
            print(f"{key} ...", flush=True)
            self.results[key] = compute()
            write_text(self.path, json.dumps(self.results) + "\n")
        return self.results[key]


def random_sets(shape: Shape, category: str) -> list[list[KeptUnits]]:
    """Return random sets to remove, for each size of a category; channels are removed in groups of neighbours."""
    rng = np.random.default_rng(0)
    sets = []
    for removed in REMOVED_SHARES[category]:
        shares = {"heads": 0.0, "channels": 0.0, "embed dims": 0.0}
        mixed = {"heads": removed, "channels": removed, "embed dims": removed / 2}
        shares |= {category: removed} if category in shares else mixed
        sets.append(
            [
                KeptUnits(
                    _random_kept(rng, shape.depth, shape.num_heads[0], shares["heads"]),
                    _members(_random_kept(rng, shape.depth, shape.hidden_dim[0] // GROUP_SIZE, shares["channels"])),
                    _random_kept(rng, 1, shape.embed_dim, shares["embed dims"])[0],
                )
                for _ in range(_RETRAINED_PER_SIZE if category == RETRAINED else SETS_PER_SIZE)
            ]
        )
    return sets


def _members(groups: list[list[int]]) -> list[list[int]]:
    return [[g * GROUP_SIZE + i for g in block for i in range(GROUP_SIZE)] for block in groups]


def _random_kept(rng: np.random.Generator, num_blocks: int, units: int, removed: float) -> list[list[int]]:
    """Return the units that remain after a random removal, which takes more from some blocks, as a plan does."""
    keys = rng.random((num_blocks, units)) + rng.random((num_blocks, 1))
    removed_units = np.argsort(keys, axis=None)[: round(removed * keys.size)]
    kept = np.ones(keys.size, dtype=bool)
    kept[removed_units] = False
    return [np.flatnonzero(block).tolist() for block in kept.reshape(keys.shape)]


def class_losses(subject: Subject, sets: list[KeptUnits], retrained: bool) -> ClassLosses:
    """Remove each set from the model and measure what each class loses on the test images."""
    whole = _class_scores(subject, subject.model)
    train_data = make_distillation_data(subject.model, subject.train, Jitter(0.0, 0.0), seed=0) if retrained else None
    losses = []
    for kept in sets:
        small = cut(subject.model, kept.heads, kept.channels, kept.embed_dims)
        if train_data is not None:
            _retrain(small, train_data, _EPOCHS[subject.name])
        losses.append(whole - _class_scores(subject, small))
    probability, accuracy = np.stack(losses, 1)  # (S, C) each
    return ClassLosses(probability, accuracy)


def _retrain(small: VisionTransformer, train_data: DistillationData, epochs: int) -> None:
    """Train the remaining network by distillation on all classes."""
    num_classes = small.shape.num_classes
    no_validation = train_data.take(torch.arange(0))
    loss = DistillationLoss(range(num_classes), num_classes)
    schedule = Schedule(epochs, learning_rate=1e-3)
    train(TrainingTask("retrained", small, loss, train_data, no_validation, schedule, seed=0))


def _class_scores(subject: Subject, model: VisionTransformer) -> Floats:
    """Return the mean probability of the true class and the accuracy, for each class: (2, C)."""
    test = subject.test
    logits = apply_in_batches(model, test.images)
    true = logits.softmax(1)[torch.arange(len(test)), test.labels]
    probability = [float(true[test.labels == c].mean()) for c in range(logits.shape[1])]
    return np.array([probability, accuracy_by_class(logits, test.labels)])


def removed_shares(importance: UnitImportance, sets: list[KeptUnits]) -> Floats:
    """Return the share of its importance that each class loses by each set, as a plan's retention counts it, (S, C)."""
    C, L, c = importance.channels.shape
    E = importance.embed_dims.shape[1]
    neighbours = [[list(range(i, i + GROUP_SIZE)) for i in range(0, c, GROUP_SIZE)]] * L
    heads, groups = (np.array(of_units) for of_units in importance_shares.normalised_shares(importance, neighbours))
    removed = np.ones((len(sets), C))
    for s, kept in enumerate(sets):
        retained = sum(heads[:, l, block].sum(1) for l, block in enumerate(kept.heads))
        retained += sum(
            groups[:, l, [i // GROUP_SIZE for i in block[::GROUP_SIZE]]].sum(1) for l, block in enumerate(kept.channels)
        )
        order = [*kept.embed_dims, *sorted(set(range(E)) - set(kept.embed_dims))]
        removed[s] -= retained * importance_shares.embed_retention(importance, order, len(kept.embed_dims))
    return removed


def rank_correlation(predicted: list[Floats], measured: list[Floats]) -> tuple[float, float]:
    """Return Spearman's rank correlation over all sizes together, and the mean of those within one size.

    Each is computed for every class by itself, and averaged over classes.

    Args:
        predicted: Predicted losses for each size, (S, C).
        measured: Measured losses for each size, (S, C).
    """
    overall = _spearman(np.concatenate(predicted), np.concatenate(measured))
    return overall, float(np.mean([_spearman(p, m) for p, m in zip(predicted, measured, strict=True)]))


def _spearman(predicted: Floats, measured: Floats) -> float:
    """Return the mean over classes, without those whose losses are the same for all sets and thus have no ranks."""
    ranked = [c for c in range(measured.shape[1]) if np.ptp(measured[:, c]) > 0 and np.ptp(predicted[:, c]) > 0]
    if not ranked:
        return float("nan")
    return float(np.mean([spearmanr(predicted[:, c], measured[:, c]).statistic for c in ranked]))
