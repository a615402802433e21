"""Channel groups: channels that the same classes need, in a size that the devices like.

A group is kept or removed as a whole, so its channels should be worth keeping to the same classes. A channel is a
point: its share of what each class needs. The channel that all classes together need most and is in no group yet
takes those with it that are nearest to it, until the group is full; then the next.

Near is: sum over classes of the squared difference of shares + 10 C x the squared difference of their means. The second
term keeps the level of a group's channels alike: without it, plans for all classes lose what those for a few gain.
Compared with other ways to group in docs/importance.md.

Legend: C classes, L blocks, H heads, c hidden channels, G channel groups of a block.
"""

import numpy as np

from planner.profiler.importance_sums import Floats, UnitImportance

_MOST_GROUPS = 64
# How much the mean share counts beside the shares of single classes.
_LEVEL_WEIGHT = 10.0


def group_size(hidden_dim: int, multiple: int = 8) -> int:
    """Return the multiple, doubled until a block's channels are at most 64 groups."""
    size = multiple
    while size * _MOST_GROUPS < hidden_dim:
        size *= 2
    return size


def group_channels(importance: UnitImportance, size: int) -> list[list[list[int]]]:
    """Put each block's channels into groups of a size, like with like; [L][G][size].

    What is left over is a smaller group, the last.
    """
    totals = _powers(importance.heads, importance.exponent).clip(min=0).sum(axis=(1, 2))  # (C,)
    # Block by block: copies of all blocks of a thousand classes are gigabytes.
    for l in range(importance.channels.shape[1]):
        totals += _powers(importance.channels[:, l], importance.exponent).clip(min=0).sum(axis=1)
    totals[totals == 0] = 1.0
    return [
        _alike((_powers(importance.channels[:, l], importance.exponent) / totals[:, None]).T, size)
        for l in range(importance.channels.shape[1])
    ]


def _powers(values: Floats, exponent: float) -> Floats:
    """Return the powers of sizes, signs kept: a channel that does harm is not like one that does nothing."""
    powers: Floats = np.sign(values) * np.abs(values) ** exponent
    return powers


def _alike(shares: Floats, size: int) -> list[list[int]]:
    """Group the channels of a block by their shares of what each class needs, (c, C)."""
    level = shares.mean(axis=1)  # (c,)
    points = np.hstack([shares, (_LEVEL_WEIGHT * shares.shape[1]) ** 0.5 * level[:, None]])  # (c, C + 1)
    squares = (points**2).sum(axis=1)
    free = np.arange(len(points))
    groups = []
    while len(free):
        seed = free[level[free].argmax()]
        distances = (squares - 2 * (points @ points[seed]))[free]
        # Rounding must not put its twin before the seed.
        distances[free == seed] = -np.inf
        order = np.argsort(distances, kind="stable")
        groups.append(sorted(free[order[:size]].tolist()))
        free = np.sort(free[order[size:]])
    return groups
