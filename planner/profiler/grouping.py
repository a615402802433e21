"""Channel groups: channels that the same classes need, in a size that suits the devices' kernels.

A group is kept or removed as a whole, so its channels should matter to the same classes. The grouping is a greedy
clustering with a fixed size: a channel is a point, its share of each class's importance. Of the channels in no group
yet, the one with the largest mean share becomes the seed of a group and is joined by its nearest neighbours until the
group is full; then the next.

The distance is the sum over classes of squared differences of shares, plus 10 C times the squared difference of mean
shares. The second term keeps channels of similar level together: without it, plans for all classes lose what plans for
a few gain. docs/importance.md compares it with other groupings.

Legend: C classes, L blocks, H heads, c hidden channels, G channel groups of a block.
"""

import numpy as np

from planner.arrays import Floats
from planner.profiler.importance_sums import UnitImportance

_MAX_GROUPS = 64
# Weight of the mean share relative to the shares of single classes.
_LEVEL_WEIGHT = 10.0


def group_size(hidden_dim: int, multiple: int = 8) -> int:
    """Return the multiple, doubled until a block's channels form at most 64 groups."""
    size = multiple
    while size * _MAX_GROUPS < hidden_dim:
        size *= 2
    return size


def group_channels(importance: UnitImportance, size: int) -> list[list[list[int]]]:
    """Return groups of similar channels for each block; [L][G][size].

    The last group is smaller where the size does not divide the number of channels.
    """
    totals = _signed_power(importance.heads, importance.exponent).clip(min=0).sum(axis=(1, 2))  # (C,)
    # One block at a time: copies of all blocks with a thousand classes take gigabytes.
    for l in range(importance.channels.shape[1]):
        totals += _signed_power(importance.channels[:, l], importance.exponent).clip(min=0).sum(axis=1)
    totals[totals == 0] = 1.0
    return [
        _clusters((_signed_power(importance.channels[:, l], importance.exponent) / totals[:, None]).T, size)
        for l in range(importance.channels.shape[1])
    ]


def _signed_power(values: Floats, exponent: float) -> Floats:
    """Return the power of the absolute values with their signs: a harmful channel differs from a useless one."""
    powers: Floats = np.sign(values) * np.abs(values) ** exponent
    return powers


def _clusters(shares: Floats, size: int) -> list[list[int]]:
    """Group the channels of a block by their shares of each class's importance, (c, C)."""
    level = shares.mean(axis=1)  # (c,)
    points = np.hstack([shares, (_LEVEL_WEIGHT * shares.shape[1]) ** 0.5 * level[:, None]])  # (c, C + 1)
    squares = (points**2).sum(axis=1)
    free = np.arange(len(points))
    groups = []
    while len(free):
        seed = free[level[free].argmax()]
        distances = (squares - 2 * (points @ points[seed]))[free]
        # With rounding, an identical channel could come before the seed, which then would stay free.
        distances[free == seed] = -np.inf
        order = np.argsort(distances, kind="stable")
        groups.append(sorted(free[order[:size]].tolist()))
        free = np.sort(free[order[size:]])
    return groups
