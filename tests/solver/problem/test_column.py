"""Columns: a class subset on an option."""

from planner.solver.problem.column import Column


def test_a_column_states_its_classes() -> None:
    """The classes are the bits of the mask."""
    assert Column(3, 0b1101).classes == (0, 2, 3)
    assert Column(0, 0).classes == ()


def test_columns_are_ordered_by_option_then_mask() -> None:
    """Their order is fixed, so that models built from them are the same every time."""
    columns = [Column(1, 2), Column(0, 7), Column(1, 1), Column(0, 3)]
    assert sorted(columns) == [Column(0, 3), Column(0, 7), Column(1, 1), Column(1, 2)]
    assert len({*columns, Column(1, 2)}) == 4
