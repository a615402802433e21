"""Importance as a profile holds it: shares of what each class needs, which add up to its retention.

Units that do harm to a class count against the others of their group; a group, head or embed dim that does harm by
itself has no share. A class that nothing helps needs everything alike.

Legend: C classes, L blocks, H heads, c hidden channels, G channel groups of a block, E embed dims.
"""

from collections.abc import Sequence

import numpy as np

from planner.profiler.importance_sums import Floats, UnitImportance

_DECIMALS = 7


def normalised(
    importance: UnitImportance, groups: Sequence[Sequence[Sequence[int]]]
) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Return the shares of heads [C][L][H] and groups [C][L][G]; both together sum to 1 for each class.

    A share is a power of the sum of a group's importance, see `UnitImportance`.
    """
    of_heads = _power(importance.heads, importance.exponent)
    of_groups = [
        _power(np.stack([block[:, list(members)].sum(axis=1) for members in groups[l]], axis=1), importance.exponent)
        for l, block in enumerate(np.moveaxis(importance.channels, 1, 0))
    ]  # L of (C, G)
    totals = of_heads.sum(axis=(1, 2)) + sum(block.sum(axis=1) for block in of_groups)
    helpless = totals == 0
    for values in (of_heads, *of_groups):
        values[helpless] = 1.0
    totals[helpless] = of_heads[0].size + sum(block.shape[1] for block in of_groups)
    heads = np.round(of_heads / totals[:, None, None], _DECIMALS)
    shares = [np.round(block / totals[:, None], _DECIMALS) for block in of_groups]
    # What rounding took or gave goes to the largest group, so that the whole model retains all.
    left = 1 - heads.sum(axis=(1, 2)) - sum(block.sum(axis=1) for block in shares)
    for c in range(len(heads)):
        largest = max(shares, key=lambda block: float(block[c].max()))[c]
        g = largest.argmax()
        largest[g] = round(float(largest[g] + left[c]), _DECIMALS)
    return heads.tolist(), [[block[c].tolist() for block in shares] for c in range(len(heads))]


def embed_order(importance: UnitImportance) -> list[int]:
    """Return the embed dims, most important first: a sub-model of width e keeps the first e of them.

    All sub-models of a width keep the same dims, so each class has the same say: dims are ranked by the mean over
    classes of their share.
    """
    mean = _embed_shares(importance).mean(axis=0)  # (E,)
    order: list[int] = np.argsort(-mean, kind="stable").tolist()
    return order


def embed_retention(importance: UnitImportance, order: Sequence[int], width: int) -> list[float]:
    """Return the share of its embed dims' importance that each class keeps at a width, rounded down; (C,).

    Args:
        importance: Of the embed dims.
        order: Of the embed dims, as `embed_order` gives it.
        width: Embed dims that are kept: the first of the order.
    """
    if width == len(order):
        return [1.0] * len(importance.embed_dims)
    kept = _embed_shares(importance)[:, list(order[:width])].sum(axis=1)
    floor: list[float] = (np.floor(kept * 10**_DECIMALS) / 10**_DECIMALS).tolist()
    return floor


def _embed_shares(importance: UnitImportance) -> Floats:
    values = _power(importance.embed_dims, importance.exponent)
    values[values.sum(axis=1) == 0] = 1.0
    shares: Floats = values / values.sum(axis=1, keepdims=True)
    return shares


def _power(values: Floats, exponent: float) -> Floats:
    powers: Floats = values.clip(min=0) ** exponent
    return powers
