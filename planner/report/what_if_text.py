"""What-if, Pareto fronts and purchases for the terminal, readable at 80 columns."""

from collections.abc import Callable

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.text import make_table
from planner.units import (
    decimals_of_ms,
    format_against,
    format_bytes,
    format_energy_mj,
    format_ms,
    format_objective,
    format_share,
    shorten,
    visible,
)

# Longer names lose their middle, so that the table stays readable.
_MAX_NAME_LENGTH = 60
_MIN_NAME_WIDTH, _MAX_BOTTLENECK_WIDTH = 14, 14
# "impossible" would make the column of latencies wider.
_WITHOUT_PLAN = {"impossible": "no plan"}


def what_if_text(frame: pd.DataFrame, fleet: str) -> RenderableType:
    """Return scenarios as a table, and below it why some have no plan.

    Args:
        frame: Columns: status, latency_us, change_us, gap, bottleneck, devices_used, classes_moved, bytes_to_send,
            reason, and perhaps objective and objective_value; index: names of the scenarios.
        fleet: Name of the fleet.
    """
    has_objective = "objective_value" in frame
    # Eight columns would not fit.
    extra, used = (["objective"], []) if has_objective else ([], ["used"])
    columns = ("scenario", "latency", "change", *extra, "gap", "bottleneck", *used, "moved")
    table = _make_narrow_table(f"{visible(fleet)}: what if (times in ms; moved: classes, bytes to send)", *columns)
    format_aligned = _aligned_ms(frame)
    for i, (name, row) in enumerate(frame.iterrows()):
        if pd.isna(row["latency_us"]):
            status = str(row["status"])
            table.add_row(_name_cell(name), Text(_WITHOUT_PLAN.get(status, status), style="bold"), style="dim")
        else:
            table.add_row(
                _name_cell(name),
                format_aligned(row["latency_us"]),
                _change(row["change_us"], format_aligned),
                *([_objective(row)] if has_objective else []),
                format_share(row["gap"], 1),
                _name_cell(row["bottleneck"]),
                *([] if has_objective else [f"{row['devices_used']:.0f}"]),
                _moved(row),
                end_section=i == 0,
            )
    return Group(table, *_out_of_time(frame), *_reasons(frame))


def next_text(frame: pd.DataFrame, fleet: str) -> RenderableType:
    """Return purchases and upgrades by what they gain, and those that gain nothing in one line.

    Args:
        frame: Columns: status, latency_us, gain_us, gap, bytes_to_send, reason; index: names of the candidates.
        fleet: Name of the fleet.
    """
    helps = frame["latency_us"].notna() & ~(frame["gain_us"] <= 0)
    title = f"{visible(fleet)}: what to buy or upgrade next"
    table = _make_narrow_table(title, "change", "gain", "latency", "gap", "to send")
    format_aligned = _aligned_ms(frame)
    for name, row in frame[helps].iterrows():
        table.add_row(
            _name_cell(name),
            # Without a plan today there is nothing to compare with.
            "a plan" if pd.isna(row["gain_us"]) else f"{format_aligned(row['gain_us'])} ms",
            f"{format_aligned(row['latency_us'])} ms",
            format_share(row["gap"], 1),
            format_bytes(row["bytes_to_send"]),
        )
    useless = frame[~helps & frame["latency_us"].notna()]
    lines = [
        Text(f"Nothing is gained by: {', '.join(shorten(str(name), _MAX_NAME_LENGTH) for name in useless.index)}.")
    ]
    if any(str(name).startswith("+ ") for name in frame.index):
        note = "A device of a new kind is assumed at the default link, or else the slowest of the aggregator's."
        table.caption, table.caption_justify = Text(note, style="dim"), "left"
    return Group(table, *(lines if len(useless) else []), *_out_of_time(frame), *_reasons(frame))


def pareto_text(frame: pd.DataFrame, fleet: str) -> RenderableType:
    """Return a Pareto front as a table; its columns are those of the frame."""
    against = str(frame["against"].iloc[0])
    limit = {"accuracy": "allowed drop", "memory": "all budgets", "energy": "limit"}[against]
    value = "granted" if against == "memory" else against
    title = f"{visible(fleet)}: latency against {against}"
    table = _make_narrow_table(title, limit, value, "latency", "bound", "gap")
    format_aligned = _aligned_ms(frame)
    for _, row in frame.iterrows():
        table.add_row(
            _format_limit(against, row["limit"]),
            format_against(against, row["value"]),
            f"{format_aligned(row['latency_us'])} ms",
            f"{format_aligned(row['bound_us'])} ms",
            format_share(row["gap"], 1),
        )
    return table


def _format_limit(against: str, limit: float) -> str:
    if against == "accuracy":
        return f"{limit:g}"
    return f"x{limit:.3g}" if against == "memory" else format_energy_mj(limit)


def _change(change_us: float, format_aligned: Callable[..., str]) -> str:
    if pd.isna(change_us):
        return ""
    return format_aligned(change_us, signed=True) if change_us else "same"


def _objective(row: "pd.Series[float]") -> str:
    # Where only some rows have an objective other than latency.
    return "" if pd.isna(row["objective_value"]) else format_objective(str(row["objective"]), row["objective_value"])


def _moved(row: "pd.Series[float]") -> str:
    if pd.isna(row["bytes_to_send"]):
        return ""
    return f"{row['classes_moved']:.0f}, {format_bytes(row['bytes_to_send'])}" if row["bytes_to_send"] else "-"


def _name_cell(name: object) -> Text:
    return Text(shorten(str(name), _MAX_NAME_LENGTH))


def _make_narrow_table(title: str, *columns: str) -> Table:
    """Return a table in which names give way to numbers."""
    table = make_table(title, *columns)
    table.box, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for column in table.columns[1:]:
        is_name = column.header == "bottleneck"
        column.no_wrap = not is_name
        column.justify = "left" if is_name else "right"
        column.max_width = _MAX_BOTTLENECK_WIDTH if is_name else None
    table.columns[0].min_width = _MIN_NAME_WIDTH
    return table


def _reasons(frame: pd.DataFrame) -> list[Text]:
    """Return a line for each reason, with the scenarios that have it."""
    without_plan = frame[frame["reason"].notna()]
    lines = []
    for reason, rows in without_plan.groupby("reason", sort=False):
        names = [shorten(str(name), _MAX_NAME_LENGTH) for name in rows.index]
        more = f" and {len(names) - 2} more" if len(names) > 3 else ""
        lines.append(Text(f"{'; '.join(names[: 2 if more else 3])}{more}: {visible(str(reason))}"))
    return lines


def _out_of_time(frame: pd.DataFrame) -> list[Text]:
    """Return a line with the scenarios whose plan was cut by the time limit, if there are any."""
    planned = frame[frame["out_of_time"] & frame["latency_us"].notna()] if "out_of_time" in frame else frame[:0]
    if planned.empty:
        return []
    names = [shorten(str(name), _MAX_NAME_LENGTH) for name in planned.index]
    more = f" and {len(names) - 2} more" if len(names) > 3 else ""
    return [
        Text(f"Cut by the time limit, so that another run may differ: {'; '.join(names[: 2 if more else 3])}{more}.")
    ]


def _aligned_ms(frame: pd.DataFrame) -> Callable[..., str]:
    """Return a formatter of times that shows three digits of the table's shortest latency in every row."""
    decimals = decimals_of_ms(frame["latency_us"].min())
    return lambda time_us, signed=False: format_ms(time_us, decimals, signed=signed)
