"""A device kind's latency table for the terminal, readable at 80 columns."""

from collections.abc import Sequence

from rich.console import RenderableType

from planner.report.text import align_right, make_table
from planner.schema import LatencyRow
from planner.units import format_number, format_share, visible


def latency_text(kind: str, rows: Sequence[LatencyRow]) -> RenderableType:
    """Return the coefficients [us] of each width and precision, and the error on held-out networks."""
    title = f"{visible(kind)}: microseconds, and error on held-out networks"
    table = make_table(title, "precision", "width", "fixed", "attention", "head", "mlp", "channel", "mean", "p95")
    for row in rows:
        coefficients = (row.fixed_us, row.attention_us, row.head_us, row.mlp_us, row.channel_us)
        errors = ("-" if error is None else format_share(error, 1) for error in (row.mape, row.p95_error))
        table.add_row(row.precision, str(row.embed_dim), *(format_number(us, 3) for us in coefficients), *errors)
    return align_right(table)
