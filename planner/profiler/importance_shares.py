"""Importance shares as a profile holds them: each unit's share of a class, which add up to the class's retention.

Units that harm a class count against the others of their channel group; a group, head or embed dim that harms it as a
whole has no share. A class that no unit helps needs all units alike.

Legend: C classes, L blocks, H heads, c hidden channels, G channel groups of a block, E embed dims.
"""

from collections.abc import Sequence

import numpy as np

from planner.arrays import Floats
from planner.profiler.importance_sums import UnitImportance

_DECIMALS = 7


def normalised_shares(
    importance: UnitImportance, groups: Sequence[Sequence[Sequence[int]]]
) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Return the shares of heads [C][L][H] and channel groups [C][L][G]; both together sum to 1 for each class.

    A share is proportional to a power of the sum of a group's importance, see `UnitImportance`.
    """
    of_heads = _positive_power(importance.heads, importance.exponent)
    of_groups = [
        _positive_power(
            np.stack([block[:, list(members)].sum(axis=1) for members in groups[l]], axis=1), importance.exponent
        )
        for l, block in enumerate(np.moveaxis(importance.channels, 1, 0))
    ]  # L of (C, G)
    totals = of_heads.sum(axis=(1, 2)) + sum(block.sum(axis=1) for block in of_groups)
    unhelped = totals == 0
    for values in (of_heads, *of_groups):
        values[unhelped] = 1.0
    totals[unhelped] = of_heads[0].size + sum(block.shape[1] for block in of_groups)
    heads = np.round(of_heads / totals[:, None, None], _DECIMALS)
    shares = [np.round(block / totals[:, None], _DECIMALS) for block in of_groups]
    # The rounding error goes to the largest group, so that the whole model retains exactly 1.
    remainder = 1 - heads.sum(axis=(1, 2)) - sum(block.sum(axis=1) for block in shares)
    for c in range(len(heads)):
        largest = max(shares, key=lambda block: float(block[c].max()))[c]
        g = largest.argmax()
        largest[g] = round(float(largest[g] + remainder[c]), _DECIMALS)
    return heads.tolist(), [[block[c].tolist() for block in shares] for c in range(len(heads))]


def embed_order(importance: UnitImportance) -> list[int]:
    """Return the embed dims, most important first: a sub-model of width e keeps the first e of them.

    All sub-models of a width keep the same dims, so classes count equally: dims are ranked by the mean of their shares
    over classes.
    """
    mean = _embed_shares(importance).mean(axis=0)  # (E,)
    order: list[int] = np.argsort(-mean, kind="stable").tolist()
    return order


def embed_retention(importance: UnitImportance, order: Sequence[int], width: int) -> list[float]:
    """Return the share of its embed dims' importance that each class keeps at a width, rounded down; (C,).

    Args:
        importance: Importance of the units, of which only the embed dims count.
        order: Embed dims in the order of `embed_order`.
        width: Number of embed dims that are kept, the first of the order.
    """
    if width == len(order):
        return [1.0] * len(importance.embed_dims)
    kept = _embed_shares(importance)[:, list(order[:width])].sum(axis=1)
    floor: list[float] = (np.floor(kept * 10**_DECIMALS) / 10**_DECIMALS).tolist()
    return floor


def _embed_shares(importance: UnitImportance) -> Floats:
    values = _positive_power(importance.embed_dims, importance.exponent)
    values[values.sum(axis=1) == 0] = 1.0
    shares: Floats = values / values.sum(axis=1, keepdims=True)
    return shares


def _positive_power(values: Floats, exponent: float) -> Floats:
    powers: Floats = values.clip(min=0) ** exponent
    return powers
