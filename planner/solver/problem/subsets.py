"""Class subsets as bit masks, and tables with a row for each of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def classes_of(mask: int) -> tuple[int, ...]:
    """Return the classes in a bit mask."""
    return tuple(c for c in range(mask.bit_length()) if mask >> c & 1)


def mask_of(classes: Sequence[int]) -> int:
    """Return the bit mask of some classes."""
    return sum(1 << c for c in classes)


def halves_by_class(table: NDArray[Any], num_classes: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield, for each class, views of a table's rows for the subsets without it, and of those with it.

    Taking minima or maxima from one view into the other, class after class, spreads values to all supersets
    (or subsets) in C passes: the zeta transform over the subset lattice.

    Args:
        table: Its first axes, one for each class, are the class subsets.
        num_classes: Number of these axes.
    """
    for axis in range(num_classes):
        by_class = np.moveaxis(table, axis, 0)
        # Slices and not elements: with one class, elements would be numbers and no views.
        yield by_class[:1], by_class[1:]
