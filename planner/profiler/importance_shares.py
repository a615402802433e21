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
# Retentions are compared with a tolerance of 1e-6.
_MIN_SHARE = 5e-6
# Exponent of the share that a class keeps of a half-block, below 1 for diminishing returns.
_SHARE_EXPONENT = 0.7


def normalised_shares(
    importance: UnitImportance, groups: Sequence[Sequence[Sequence[int]]], half_exponent: float | None = None
) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Return the shares of heads [C][L][H] and channel groups [C][L][G]; both together sum to 1 for each class.

    A share is proportional to a power of the sum of a group's importance, see `UnitImportance`.

    Args:
        importance: Importance of all units.
        groups: Channels of each group, for each block.
        half_exponent: Exponent of `in_series`; units count as they were measured unless given.
    """
    halves = [_positive_power(block, importance.exponent) for block in np.moveaxis(importance.heads, 1, 0)]
    for l, block in enumerate(np.moveaxis(importance.channels, 1, 0)):
        sums = np.stack([block[:, list(members)].sum(axis=1) for members in groups[l]], axis=1)
        halves.append(_positive_power(sums, importance.exponent))
    # 2 L of (C, H) and (C, G).
    unhelped = sum(half.sum(axis=1) for half in halves) == 0
    for half in halves:
        half[unhelped] = 1.0
    if half_exponent is not None:
        halves = [in_series(half, half_exponent) for half in halves]
    totals = sum(half.sum(axis=1) for half in halves)
    shares = [_rounded(half / totals[:, None]) for half in halves]
    _, num_blocks, _ = importance.heads.shape
    of_heads, of_groups = np.stack(shares[:num_blocks], axis=1), shares[num_blocks:]
    # The rounding error goes to the largest group, so that the whole model retains exactly 1.
    remainder = 1 - of_heads.sum(axis=(1, 2)) - sum(block.sum(axis=1) for block in of_groups)
    for c in range(len(of_heads)):
        largest = max(of_groups, key=lambda block: float(block[c].max()))[c]
        g = largest.argmax()
        largest[g] = round(float(largest[g] + remainder[c]), _DECIMALS)
    return of_heads.tolist(), [[block[c].tolist() for block in of_groups] for c in range(len(of_heads))]


def _rounded(shares: Floats) -> Floats:
    """Return shares in decimals; none that is not zero becomes so small that a floor of 1 could do without its unit."""
    raised: Floats = np.where(shares > 0, np.maximum(shares, _MIN_SHARE), 0.0)
    return np.round(raised, _DECIMALS)


def in_series(values: Floats, half_exponent: float) -> Floats:
    """Return the worth of the units of a half-block (C, U) where half-blocks lie in series, from their importance.

    A class that keeps the share r of its importance in a half-block, the most important units first, has r^0.7 of that
    half-block's worth: the first units are worth the most, since least squares makes up for what is missing as long as
    something is left to fit. A half-block is worth its total importance to a power: at 0 all are worth the
    same, at 1 their importance. How far a class does without one depends on the model, and is measured
    (`planner.profiler.series`).

    Args:
        values: Importance of each unit for each class, not negative, (C, U).
        half_exponent: Exponent of the total.
    """
    totals = values.sum(axis=1, keepdims=True)  # (C, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    kept = np.cumsum(np.take_along_axis(values, order, axis=1), axis=1) / np.where(totals > 0, totals, 1.0)
    worth = np.diff(kept**_SHARE_EXPONENT, axis=1, prepend=0.0)
    in_order = np.empty_like(worth)
    np.put_along_axis(in_order, order, worth, axis=1)
    scaled: Floats = in_order * np.where(totals > 0, totals, 0.0) ** half_exponent
    return np.where(totals > 0, scaled, 0.0)


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
