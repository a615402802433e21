"""A device kind's latency table for the terminal, readable at 80 columns."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from planner.report.text import align_right, make_table
from planner.schema import Engine, LatencyRow, Profile
from planner.units import format_number, format_share, visible

MAX_ERROR = 0.15
"""Mean error of a latency table on networks that were held out, above which it comes with a warning."""


def latency_warnings(profile: Profile) -> list[str]:
    """Return a sentence for each latency table whose predictions are too far off."""
    worst = {kind: max((row.mape or 0.0 for row in rows), default=0.0) for kind, rows in profile.latency.items()}
    return [
        f"kind {visible(kind)}: times of networks that were held out are off by {format_share(error, 1)}, more than "
        f"{format_share(MAX_ERROR)}; measure again with nothing else running, or plan with a margin."
        for kind, error in worst.items()
        if error > MAX_ERROR
    ]


def latency_text(kind: str, rows: Sequence[LatencyRow]) -> RenderableType:
    """Return the coefficients [us] of each width and precision, and the error on held-out networks, by engine."""
    engines = dict.fromkeys(row.engine for row in rows)
    tables = [_table(kind, engine, [row for row in rows if row.engine == engine]) for engine in engines]
    is_partial = any(row.last_head_us is not None for row in rows)
    note = ["In C, heads and channels of the last block take less: what is not read there is not computed."]
    return Group(*tables, *note * is_partial)


def _table(kind: str, engine: Engine, rows: Sequence[LatencyRow]) -> Table:
    title = f"{visible(kind)}{', engine c' * (engine == 'c')}: microseconds, and error on held-out networks"
    table = make_table(title, "precision", "width", "fixed", "attention", "head", "mlp", "channel", "mean", "p95")
    for row in rows:
        coefficients = (row.fixed_us, row.attention_us, row.head_us, row.mlp_us, row.channel_us)
        errors = ("-" if error is None else format_share(error, 1) for error in (row.mape, row.p95_error))
        table.add_row(row.precision, str(row.embed_dim), *(format_number(us, 3) for us in coefficients), *errors)
    return align_right(table)
