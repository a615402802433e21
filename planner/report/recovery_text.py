"""Table of what each step of a recovery brought, for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from planner.executor.recovery_steps import TrainingSteps
from planner.report.text import align_right, make_table, name_text
from planner.units import format_share

# Names of the trainings of a fusion, and of all networks together, in the table.
_FUSED_NAMES = {"fusion": "fused", "together": "fused, trained together"}


def recovery_table(steps: Sequence[TrainingSteps]) -> Table:
    """Return the accuracies on validation images as a table, one row for each training."""
    table = make_table("Accuracy on validation images", "sub-model", "as cut", "least squares", "trained")
    for i, training in enumerate(steps):
        fused = training.name in _FUSED_NAMES and i >= len(steps) - len(_FUSED_NAMES)
        # What learns together begins where the fusion ended.
        refitted = training.as_cut is not None and not (fused and training.name == "together")
        # A fusion is not cut: what it has before its fit is random.
        as_cut = None if fused else training.as_cut if refitted else training.start
        row = (as_cut, training.start if refitted else None, training.trained)
        table.add_row(
            name_text(_FUSED_NAMES[training.name] if fused else training.name),
            *("-" if accuracy is None else format_share(accuracy, 1) for accuracy in row),
            style="bold" if i == len(steps) - 1 else None,
        )
    return align_right(table)
