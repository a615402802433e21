"""Channel groups.

Legend: C classes, L blocks, c hidden channels, G channel groups of a block.
"""

import numpy as np

from planner.profiler.units import UnitImportance

_MOST_GROUPS = 64


def group_size(hidden_dim: int, multiple: int = 8) -> int:
    """Return the smallest multiple that makes at most 64 groups of a block's channels."""
    return multiple * max(1, -(-hidden_dim // (_MOST_GROUPS * multiple)))


def group_channels(importance: UnitImportance, size: int) -> list[list[list[int]]]:
    totals = importance.heads.sum(axis=(1, 2)) + importance.channels.sum(axis=(1, 2))
    most = (importance.channels / totals[:, None, None]).max(axis=0)  # (L, c)
    groups = []
    for values in most:
        order = np.argsort(-values, kind="stable")
        groups.append([sorted(order[i : i + size].tolist()) for i in range(0, len(order), size)])
    return groups
