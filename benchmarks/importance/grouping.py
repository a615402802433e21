"""Comparison of channel groupings: retention of single channels' importance by optimal groups, and accuracy.

For random class subsets and numbers of kept channels, a linear program selects the groups that maximise the minimal
retention of the subset's classes; all heads and embed dims are kept. The retention of a class is the sum of its kept
channels' importance, relative to that of all channels that help it: the same measure for all groupings.

Legend: C classes, L blocks, c hidden channels, G channel groups, n classes of a subset.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog

from benchmarks.importance.subjects import Subject
from planner.arrays import Floats, Ints
from planner.network.evaluation import apply_in_batches
from planner.network.surgery import cut
from planner.profiler.grouping import group_channels
from planner.profiler.importance_sums import UnitImportance

Groups = list[list[list[int]]]

SIZE = 8
CLASS_COUNTS = (1, 2, 5, 10)
KEPT_SHARES = (0.125, 0.25)
_SUBSETS = 6
SINGLE = "single channels"


@dataclass(frozen=True)
class GroupingResult:
    """Result of one grouping: its time [s], and for each (n, kept) the mean minimal retention and mean accuracy.

    The names of the fields are keys of the cached results.
    """

    name: str
    seconds: float
    retention: list[float]
    accuracy: list[float]


def compare_groupings(subject: Subject, importance: UnitImportance) -> list[GroupingResult]:
    """Return the result of each grouping."""
    C, L, c = importance.channels.shape
    rng = np.random.default_rng(0)
    subsets = [
        [sorted(rng.choice(C, n, replace=False).tolist()) for _ in range(_SUBSETS if n < C else 1)]
        for n in CLASS_COUNTS
    ]
    groupings: dict[str, Callable[[], Groups]] = {
        "neighbours": lambda: [_chunks(np.arange(c), SIZE)] * L,
        "ranked by the most that a class needs": lambda: _ranked(importance),
        "like with like (`group_channels`)": lambda: group_channels(importance, SIZE),
        SINGLE: lambda: [_chunks(np.arange(c), 1)] * L,
    }
    rows = []
    for name, group in groupings.items():
        start = time.perf_counter()
        groups = group()
        seconds = time.perf_counter() - start
        cells = [
            [_evaluate(subject, importance, groups, subset, kept) for subset in of_n]
            for of_n in subsets
            for kept in KEPT_SHARES
        ]
        retention, accuracy = (np.array([np.mean([pair[i] for pair in cell]) for cell in cells]) for i in (0, 1))
        rows.append(GroupingResult(name, seconds, retention.tolist(), accuracy.tolist()))
    return rows


def _ranked(importance: UnitImportance) -> Groups:
    """Return groups of channels that follow each other in the order of their largest share of any class."""
    max_share = (importance.channels / importance.channels.clip(min=0).sum((1, 2), keepdims=True)).max(axis=0)  # (L, c)
    return [_chunks(np.argsort(-values, kind="stable"), SIZE) for values in max_share]


def _chunks(order: Ints, size: int) -> list[list[int]]:
    return [order[i : i + size].tolist() for i in range(0, len(order), size)]


def _evaluate(
    subject: Subject, importance: UnitImportance, groups: Groups, subset: list[int], kept: float
) -> tuple[float, float]:
    """Return the minimal retention of the optimal groups, and the accuracy of that network on the subset's images."""
    channels = importance.channels[subset]
    shares = channels / channels.clip(min=0).sum((1, 2), keepdims=True)
    units = [(l, members) for l, block in enumerate(groups) for members in block]
    values = np.stack([shares[:, l, members].sum(1) for l, members in units], axis=1)  # (n, all G)
    min_retention, selected = _max_min_selection(values, round(kept * len(units)))
    kept_channels: list[list[int]] = [[] for _ in groups]
    for u in selected:
        kept_channels[units[u][0]] += units[u][1]
    shape = subject.model.shape
    small = cut(subject.model, [list(range(h)) for h in shape.num_heads], kept_channels)
    is_in_subset = np.isin(subject.test.labels.numpy(), subset)
    test = subject.test.take(torch.from_numpy(is_in_subset.nonzero()[0]))
    correct = apply_in_batches(small, test.images).argmax(1) == test.labels
    return min_retention, float(correct.float().mean())


def _max_min_selection(values: Floats, max_columns: int) -> tuple[float, list[int]]:
    """Return the largest minimal row sum over selections of columns, by LP relaxation, and the selection rounded."""
    n, num_groups = values.shape
    rows = np.vstack([np.hstack([-values, np.ones((n, 1))]), np.append(np.ones(num_groups), 0)])
    solution = linprog(
        np.append(np.zeros(num_groups), -1.0),
        A_ub=rows,
        b_ub=np.append(np.zeros(n), max_columns),
        bounds=[(0, 1)] * num_groups + [(None, None)],
    )
    order = np.lexsort((-values.sum(0), -solution.x[:-1].round(6)))
    return -float(solution.fun), order[:max_columns].tolist()
