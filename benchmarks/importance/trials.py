"""Random sets of units, cut from a model, and what each class loses by each.

Legend: C classes, L blocks, H heads, c hidden channels, E embed dims, S sets.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.importance.subjects import Subject
from planner.network.data import Jitter
from planner.network.distillation_data import DistillationData, distillation_data
from planner.network.evaluation import batched, share_right_by_class
from planner.network.losses import DistillationLoss
from planner.network.surgery import cut
from planner.network.training import Schedule, TrainingTask, train
from planner.network.vit import Shape, VisionTransformer
from planner.profiler import importance_shares
from planner.profiler.importance_sums import UnitImportance
from planner.schema.base import write_text

Floats = NDArray[np.float64]

RETRAINED = "mixed, retrained"
# The shares of units that are removed, for each kind of set; of mixed sets half as many embed dims as heads.
REMOVED = {
    "heads": (0.125, 0.25, 0.375, 0.5),
    "channels": (0.125, 0.25, 0.5, 0.75),
    "embed dims": (0.0625, 0.125, 0.25, 0.5),
    "mixed": (0.125, 0.25, 0.375, 0.5),
    RETRAINED: (0.25, 0.5, 0.75),
}
SETS_PER_SIZE = 20
# Retraining takes a while: fewer sets, and short.
_RETRAINED_PER_SIZE = 10
_PASSES = {"digits": 3, "Fashion-MNIST": 1}
GROUP_SIZE = 8


@dataclass(frozen=True)
class Cut:
    """What a set leaves of each block, and of the embed dims."""

    heads: list[list[int]]
    channels: list[list[int]]
    embed_dims: list[int]


@dataclass(frozen=True)
class Losses:
    """What each class loses by each set, (S, C): probability of the true class, and accuracy."""

    probability: Floats
    accuracy: Floats


class Store:
    """Results that were found before, in a file: a run that was stopped goes on."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path = path
        self.results: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not fresh else {}

    def result(self, key: str, find: Callable[[], Any]) -> Any:
        """Return what is known by a key, found now unless it is."""
        if key not in self.results:
            print(f"{key} ...", flush=True)
            self.results[key] = find()
            write_text(self.path, json.dumps(self.results) + "\n")
        return self.results[key]


def random_cuts(shape: Shape, kind: str) -> list[list[Cut]]:
    """Return random sets to remove, of each size of a kind; channels go in groups of neighbours, the same for all."""
    rng = np.random.default_rng(0)
    found = []
    for removed in REMOVED[kind]:
        of = {"heads": 0.0, "channels": 0.0, "embed dims": 0.0}
        mixed = {"heads": removed, "channels": removed, "embed dims": removed / 2}
        of |= {kind: removed} if kind in of else mixed
        found.append(
            [
                Cut(
                    _kept(rng, shape.depth, shape.num_heads[0], of["heads"]),
                    _members(_kept(rng, shape.depth, shape.hidden_dim[0] // GROUP_SIZE, of["channels"])),
                    _kept(rng, 1, shape.embed_dim, of["embed dims"])[0],
                )
                for _ in range(_RETRAINED_PER_SIZE if kind == RETRAINED else SETS_PER_SIZE)
            ]
        )
    return found


def _members(groups: list[list[int]]) -> list[list[int]]:
    return [[g * GROUP_SIZE + i for g in block for i in range(GROUP_SIZE)] for block in groups]


def _kept(rng: np.random.Generator, num_blocks: int, units: int, removed: float) -> list[list[int]]:
    """Remove a share of all units: more from some blocks than from others, as a plan does."""
    keys = rng.random((num_blocks, units)) + rng.random((num_blocks, 1))
    lost = np.argsort(keys, axis=None)[: round(removed * keys.size)]
    kept = np.ones(keys.size, dtype=bool)
    kept[lost] = False
    return [np.flatnonzero(block).tolist() for block in kept.reshape(keys.shape)]


def losses(subject: Subject, cuts: list[Cut], retrained: bool) -> Losses:
    """Cut each set from the model and see what each class loses on the test images."""
    whole = _by_class(subject, subject.model)
    lessons = distillation_data(subject.model, subject.train, Jitter(0.0, 0.0), seed=0) if retrained else None
    lost = []
    for one in cuts:
        small = cut(subject.model, one.heads, one.channels, one.embed_dims)
        if lessons is not None:
            _retrain(small, lessons, _PASSES[subject.name])
        lost.append(whole - _by_class(subject, small))
    probability, accuracy = np.stack(lost, 1)  # (S, C) each
    return Losses(probability, accuracy)


def _retrain(small: VisionTransformer, lessons: DistillationData, epochs: int) -> None:
    """Train what is left, by distillation on all classes."""
    classes = small.shape.num_classes
    nothing = lessons.take(torch.arange(0))
    objective = DistillationLoss(range(classes), classes)
    train(TrainingTask("retrained", small, objective, lessons, nothing, Schedule(epochs, learning_rate=1e-3), seed=0))


def _by_class(subject: Subject, model: VisionTransformer) -> Floats:
    """Return the mean probability of the true class and the accuracy, for each class: (2, C)."""
    test = subject.test
    logits = batched(model, test.images)
    true = logits.softmax(1)[torch.arange(len(test)), test.labels]
    probability = [float(true[test.labels == c].mean()) for c in range(logits.shape[1])]
    return np.array([probability, share_right_by_class(logits, test.labels)])


def removed_shares(importance: UnitImportance, cuts: list[Cut]) -> Floats:
    """Return the share of its importance that each class loses by each set, (S, C), as a plan's retention counts it."""
    C, L, c = importance.channels.shape
    E = importance.embed_dims.shape[1]
    neighbours = [[list(range(i, i + GROUP_SIZE)) for i in range(0, c, GROUP_SIZE)]] * L
    heads, groups = (np.array(of_units) for of_units in importance_shares.normalised(importance, neighbours))
    lost = np.ones((len(cuts), C))
    for s, one in enumerate(cuts):
        kept = sum(heads[:, l, block].sum(1) for l, block in enumerate(one.heads))
        kept += sum(
            groups[:, l, [i // GROUP_SIZE for i in block[::GROUP_SIZE]]].sum(1) for l, block in enumerate(one.channels)
        )
        order = [*one.embed_dims, *sorted(set(range(E)) - set(one.embed_dims))]
        lost[s] -= kept * importance_shares.embed_retention(importance, order, len(one.embed_dims))
    return lost


def agreement(predicted: list[Floats], real: list[Floats]) -> tuple[float, float]:
    """Return the rank correlation over all sizes together, and the mean of those within one size.

    Each is Spearman's, of each class by itself, and the mean over classes.

    Args:
        predicted: For each size, (S, C).
        real: For each size, (S, C).
    """
    overall = _spearman(np.concatenate(predicted), np.concatenate(real))
    return overall, float(np.mean([_spearman(p, r) for p, r in zip(predicted, real, strict=True)]))


def _spearman(predicted: Floats, real: Floats) -> float:
    """Return the mean over classes; a class that loses the same by all sets says nothing."""
    told = [c for c in range(real.shape[1]) if np.ptp(real[:, c]) > 0 and np.ptp(predicted[:, c]) > 0]
    if not told:
        return float("nan")
    return float(np.mean([spearmanr(predicted[:, c], real[:, c]).statistic for c in told]))
