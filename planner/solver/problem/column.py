"""Columns of the covering problem: class subsets on options."""

from dataclasses import dataclass

from planner.solver.problem.subsets import classes_of


@dataclass(frozen=True, order=True)
class Column:
    """A class subset (as a bit mask) on an option (by its index)."""

    option: int
    mask: int

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes of the subset."""
        return classes_of(self.mask)
