"""A device's latency table for the terminal, readable at 80 columns."""

from collections.abc import Sequence

from rich.console import RenderableType

from planner.report.text import table, to_right
from planner.schema import LatencyRow


def table_text(kind: str, rows: Sequence[LatencyRow]) -> RenderableType:
    """Return the coefficients [us] of each width and precision, and what held-out networks were off by."""
    title = f"{kind}: microseconds, and error on held-out networks"
    shown = table(title, "precision", "width", "fixed", "attention", "head", "mlp", "channel", "mean", "p95")
    for row in rows:
        coefficients = (row.fixed_us, row.attention_us, row.head_us, row.mlp_us, row.channel_us)
        errors = ("-" if error is None else f"{error:.1%}" for error in (row.mape, row.p95_error))
        shown.add_row(row.precision, str(row.embed_dim), *map(_us, coefficients), *errors)
    return to_right(shown)


def _us(value: float) -> str:
    """Return three digits at least, never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
