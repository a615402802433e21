"""Ways to group channels: what the best choice of groups keeps of single channels' importance, and real accuracy.

For random class subsets and numbers of kept channels, a linear program chooses the groups that maximise the least
retention of the subset's classes; heads and embed dims are all kept. What is kept of a class is the sum of its
channels' importance, over that of all channels that help it: the same measure for all groupings.

Legend: C classes, L blocks, c hidden channels, G channel groups, n classes of a subset.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from benchmarks.importance.subjects import Subject
from planner.network.evaluation import batched
from planner.network.surgery import cut
from planner.profiler.grouping import group_channels
from planner.profiler.importance_sums import UnitImportance

Floats = NDArray[np.float64]
Groups = list[list[list[int]]]

SIZE = 8
COUNTS = (1, 2, 5, 10)
KEPT = (0.125, 0.25)
_SUBSETS = 6
SINGLE = "single channels"


@dataclass(frozen=True)
class Row:
    """One grouping: seconds to make it; for each (n, kept) the mean least retention, and the mean accuracy."""

    name: str
    seconds: float
    retention: list[float]
    accuracy: list[float]


def compare(subject: Subject, importance: UnitImportance) -> list[Row]:
    """Return a row for each way to group."""
    C, L, c = importance.channels.shape
    rng = np.random.default_rng(0)
    subsets = [
        [sorted(rng.choice(C, n, replace=False).tolist()) for _ in range(_SUBSETS if n < C else 1)] for n in COUNTS
    ]
    ways = {
        "neighbours": lambda: [_chunks(np.arange(c), SIZE)] * L,
        "ranked by the most that a class needs": lambda: _ranked(importance),
        "like with like (`group_channels`)": lambda: group_channels(importance, SIZE),
        SINGLE: lambda: [_chunks(np.arange(c), 1)] * L,
    }
    rows = []
    for name, way in ways.items():
        start = time.perf_counter()
        groups = way()
        seconds = time.perf_counter() - start
        found = [
            [_planned(subject, importance, groups, subset, kept) for subset in of_n]
            for of_n in subsets
            for kept in KEPT
        ]
        retention, accuracy = (np.array([np.mean([pair[i] for pair in cell]) for cell in found]) for i in (0, 1))
        rows.append(Row(name, seconds, retention.tolist(), accuracy.tolist()))
    return rows


def _ranked(importance: UnitImportance) -> Groups:
    most = (importance.channels / importance.channels.clip(min=0).sum((1, 2), keepdims=True)).max(axis=0)  # (L, c)
    return [_chunks(np.argsort(-values, kind="stable"), SIZE) for values in most]


def _chunks(order: NDArray[np.int64], size: int) -> list[list[int]]:
    return [order[i : i + size].tolist() for i in range(0, len(order), size)]


def _planned(
    subject: Subject, importance: UnitImportance, groups: Groups, subset: list[int], kept: float
) -> tuple[float, float]:
    """Return the least retention of the best choice, and the accuracy on the subset's images of what is so cut."""
    channels = importance.channels[subset]
    shares = channels / channels.clip(min=0).sum((1, 2), keepdims=True)
    units = [(l, members) for l, block in enumerate(groups) for members in block]
    values = np.stack([shares[:, l, members].sum(1) for l, members in units], axis=1)  # (n, all G)
    least, chosen = _best(values, round(kept * len(units)))
    kept_channels: list[list[int]] = [[] for _ in groups]
    for u in chosen:
        kept_channels[units[u][0]] += units[u][1]
    shape = subject.model.shape
    small = cut(subject.model, [list(range(h)) for h in shape.num_heads], kept_channels)
    mine = np.isin(subject.test.labels.numpy(), subset)
    test = subject.test.take(mine.nonzero()[0])
    right = batched(small, test.images).argmax(1) == test.labels
    return least, float(right.float().mean())


def _best(values: Floats, most: int) -> tuple[float, list[int]]:
    """Return the greatest least row sum over choices of so many columns (relaxed), and the choice rounded."""
    n, num_groups = values.shape
    rows = np.vstack([np.hstack([-values, np.ones((n, 1))]), np.append(np.ones(num_groups), 0)])
    found = linprog(
        np.append(np.zeros(num_groups), -1.0),
        A_ub=rows,
        b_ub=np.append(np.zeros(n), most),
        bounds=[(0, 1)] * num_groups + [(None, None)],
    )
    order = np.lexsort((-values.sum(0), -found.x[:-1].round(6)))
    return -float(found.fun), order[:most].tolist()
