"""Class subsets as bit masks: round trips, and minima over all supersets."""

import itertools

import numpy as np
import pytest

from planner.solver.problem.subsets import classes_of, halves_by_class, mask_of


def test_masks_and_classes_round_trip() -> None:
    """Every mask is that of its classes, and every choice of classes that of its mask."""
    assert [mask_of(classes_of(mask)) for mask in range(256)] == list(range(256))
    subsets = [some for n in range(7) for some in itertools.combinations(range(6), n)]
    assert [classes_of(mask_of(classes)) for classes in subsets] == subsets
    assert classes_of(2**40 + 1) == (0, 40)


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5])
def test_minima_spread_to_all_subsets(num_classes: int) -> None:
    """From the half with a class into that without it, class after class, each subset gets its supersets' minimum."""
    table = np.random.default_rng(num_classes).integers(0, 1000, 2**num_classes)
    spread = table.copy()
    for without, with_class in halves_by_class(spread.reshape((2,) * num_classes), num_classes):
        np.minimum(without, with_class, out=without)
    masks = range(2**num_classes)
    assert spread.tolist() == [min(int(table[m]) for m in masks if m & mask == mask) for mask in masks]


def test_halves_are_views_of_rows() -> None:
    """Rows of a table with further axes are split by each class; the last bit is the first axis."""
    table = np.arange(8 * 2).reshape(2, 2, 2, 2)
    halves = [(without.copy(), with_class.copy()) for without, with_class in halves_by_class(table, 3)]
    rows = table.reshape(8, 2)
    for axis, (without, with_class) in enumerate(halves):
        c = 2 - axis
        assert without.reshape(-1, 2).tolist() == [rows[m].tolist() for m in range(8) if not m >> c & 1]
        assert with_class.reshape(-1, 2).tolist() == [rows[m].tolist() for m in range(8) if m >> c & 1]
    for _, with_class in halves_by_class(table, 3):
        with_class[:] = 0
    assert np.count_nonzero(table) == 1
