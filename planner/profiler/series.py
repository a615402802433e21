"""Worth of half-blocks and embed dims in series, measured after reconstruction in closed form.

Importance says what a class needs of a unit beside the others of its half-block. Half-blocks lie in series: where one
is left with nothing, all behind it see nothing, however little its own importance was. So half-blocks count by a power
of their total importance (`importance_shares.in_series`). Which power suits a model differs: a small ViT trained from
nothing may do most in its first block, while every block of a deep pretrained one is needed. Of a few powers the one is
taken whose plan, units by worth per MAC at half the embed dim and a tenth of the MACs, loses least.

An embed dim is worth as much as units: a width retains, of the units' worth, the share that a sub-model of full width
may keep less at the same loss. It is measured where plans are, with so many units removed, in each half-block alike,
that the loss begins to be felt: with all units kept, the little that a width costs would be more than all that a
removal costs, and where all is lost already, a width would cost nothing.

Legend: C classes, L blocks, H heads, G channel groups of a block, E embed dim.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.arrays import Floats
from planner.network import counts
from planner.network.surgery import Selection
from planner.network.vit import Shape
from planner.profiler.importance_shares import normalised_shares
from planner.profiler.importance_sums import UnitImportance

HALF_EXPONENTS = (1.0, 0.75, 0.5, 0.25, 0.0)
_WIDTH_SHARE, _MACS_SHARE = 0.5, 0.1
# Shares of each half-block's worth whose losses are measured at the full width; widths are compared at the first of
# them whose loss is as large as this [nat].
_LEVELS = (0.9, 0.75, 0.55, 0.4, 0.3, 0.2)
_FELT_LOSS = 0.1
# Largest retention of a width below the full one: only what is not cut at all retains everything.
_MAX_NARROW = 0.999
# Losses below are rounding.
_MIN_LOSS = 1e-4
_DECIMALS = 6

# Losses of sub-models after their recovery, in the order of their selections.
LossesOf = Callable[[Sequence[Selection]], list[float]]


@dataclass(frozen=True)
class Unit:
    """A head, or a channel group, with its mean worth over classes."""

    block: int
    head: int | None
    channels: tuple[int, ...]
    worth: float


def num_losses(widths: Sequence[int]) -> int:
    """Return how many losses are measured at most."""
    narrower = len(widths) - 1
    return len(HALF_EXPONENTS) + (narrower + len(_LEVELS) if narrower else 0)


def best_half_exponent(
    importance: UnitImportance,
    groups: Sequence[Sequence[Sequence[int]]],
    shape: Shape,
    widths: Sequence[int],
    losses_of: LossesOf,
) -> float:
    """Return the exponent whose plan has the lowest loss, at the width that is nearest to half of the full one.

    Args:
        importance: Importance of all units.
        groups: Channels of each group, for each block.
        shape: Shape of the whole model.
        widths: Embed dims that sub-models may have, the full one first.
        losses_of: Losses of sub-models after their recovery.
    """
    width = min(widths, key=lambda e: abs(e - _WIDTH_SHARE * shape.embed_dim))
    budget = _MACS_SHARE * (counts.exact(shape).macs - counts.fixed(shape).macs)

    def selection_with(exponent: float) -> Selection:
        units = units_by_worth(importance, groups, exponent, replace(shape, embed_dim=width))
        kept, left = list[Unit](), budget
        for unit in units:
            if (macs := _macs(unit, shape, width)) <= left:
                kept.append(unit)
                left -= macs
        return select(kept, shape, width)

    losses = losses_of([selection_with(exponent) for exponent in HALF_EXPONENTS])
    return HALF_EXPONENTS[losses.index(min(losses))]


def width_retention(
    units: Sequence[Unit], shape: Shape, widths: Sequence[int], losses_of: LossesOf
) -> dict[int, float]:
    """Return the retention of each width: the share of the units' worth that the full width may keep at the same loss.

    Args:
        units: All units, of each half-block the most important ones first.
        shape: Shape of the whole model.
        widths: Embed dims that sub-models may have, the full one first.
        losses_of: Losses of sub-models after their recovery.
    """
    full, *narrower = widths
    retained = {full: 1.0}
    if not narrower:
        return retained
    kept_at = [_first_units(units, level) for level in _LEVELS]
    worth = [1.0, *(sum(unit.worth for unit in kept) for kept in kept_at)]
    losses = [_MIN_LOSS]
    losses += [max(_MIN_LOSS, loss) for loss in losses_of([select(kept, shape, full) for kept in kept_at])]
    # A loss that is not higher with fewer units is noise.
    rising = np.log(np.maximum.accumulate(losses))
    felt = [level for level, loss in zip(_LEVELS, losses[1:], strict=True) if loss >= _FELT_LOSS]
    compared = _first_units(units, felt[0] if felt else _LEVELS[-1])
    own_worth = sum(unit.worth for unit in compared)
    for width, loss in zip(narrower, losses_of([select(compared, shape, e) for e in narrower]), strict=True):
        share = float(np.interp(np.log(max(_MIN_LOSS, loss)), rising, worth)) / own_worth
        # Nor does a narrower width retain more, or all.
        retained[width] = round(min(share, *retained.values(), _MAX_NARROW), _DECIMALS)
    return retained


def _first_units(units: Sequence[Unit], level: float) -> list[Unit]:
    """Return the first units of each half-block, as many as have this share of its worth."""
    halves: dict[tuple[int, bool], list[Unit]] = {}
    for unit in units:
        halves.setdefault((unit.block, unit.head is None), []).append(unit)
    kept: list[Unit] = []
    for half in halves.values():
        total = np.cumsum([unit.worth for unit in half])
        kept += half[: int(np.searchsorted(total, level * total[-1] - 1e-9)) + 1]
    return kept


def units_by_worth(
    importance: UnitImportance, groups: Sequence[Sequence[Sequence[int]]], half_exponent: float, shape: Shape
) -> list[Unit]:
    """Return all units by falling mean worth per MAC, the sum of all worths being 1."""
    heads, channel_groups = normalised_shares(importance, groups, half_exponent)
    of_heads: Floats = np.array(heads).mean(axis=0)  # (L, H)
    units = [Unit(l, h, (), float(worth)) for (l, h), worth in np.ndenumerate(of_heads)]
    for l, block in enumerate(groups):
        of_groups = np.array([of_class[l] for of_class in channel_groups]).mean(axis=0)  # (G,)
        units += [Unit(l, None, tuple(group), float(worth)) for group, worth in zip(block, of_groups, strict=True)]
    return sorted(units, key=lambda unit: -unit.worth / _macs(unit, shape, shape.embed_dim))


def _macs(unit: Unit, shape: Shape, width: int) -> int:
    narrow = replace(shape, embed_dim=width)
    return counts.per_channel(narrow).macs * len(unit.channels) if unit.head is None else counts.per_head(narrow).macs


def select(units: Sequence[Unit], shape: Shape, width: int) -> Selection:
    """Return the selection of these units at a width."""
    heads: list[list[int]] = [[] for _ in range(shape.depth)]
    channels: list[list[int]] = [[] for _ in range(shape.depth)]
    for unit in units:
        if unit.head is not None:
            heads[unit.block].append(unit.head)
        channels[unit.block].extend(unit.channels)
    return Selection.of(heads, channels, range(width))
