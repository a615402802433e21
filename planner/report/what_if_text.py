"""What-if, Pareto fronts and purchases for the terminal, readable at 80 columns."""

from collections.abc import Callable

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.report.text import kib, table

# Longer names are cut in the middle: the table stays one.
_LONGEST = 60
# As narrow as a latency.
_WITHOUT = {"impossible": "no plan"}


def what_if_text(frame: pd.DataFrame, fleet: str) -> RenderableType:
    """Return scenarios as a table, and below it why some have no plan.

    Args:
        frame: Columns: status, latency_us, change_us, gap, bottleneck, devices_used, classes_moved, bytes_to_send,
            reason, and perhaps objective_value; the scenarios' names as index.
        fleet: Its name.
    """
    other = "objective_value" in frame
    # Eight columns would not fit.
    extra, used = (["objective"], []) if other else ([], ["used"])
    names = ("scenario", "latency", "change", *extra, "gap", "bottleneck", *used, "moved")
    shown = _narrow(f"{visible(fleet)}: what if (times in ms; moved: classes, bytes to send)", *names)
    ms = _in_ms(frame, unit="")
    for i, (name, row) in enumerate(frame.iterrows()):
        first = [Text(visible(str(name)))]
        if pd.isna(row["latency_us"]):
            shown.add_row(*first, Text(_WITHOUT.get(str(row["status"]), str(row["status"])), style="bold"), style="dim")
        else:
            objective = [f"{row['objective_value']:.4g}"] if other else []
            moved = "" if pd.isna(row["bytes_to_send"]) else f"{row['classes_moved']:.0f}, {kib(row['bytes_to_send'])}"
            moved = moved if row["bytes_to_send"] else "-"
            shown.add_row(
                *first,
                ms(row["latency_us"]),
                "" if pd.isna(row["change_us"]) else ms(row["change_us"], "+") if row["change_us"] else "same",
                *objective,
                f"{row['gap']:.1%}",
                Text(visible(str(row["bottleneck"]))),
                *([] if other else [f"{row['devices_used']:.0f}"]),
                moved,
                end_section=i == 0,
            )
    return Group(shown, *_reasons(frame))


def next_text(frame: pd.DataFrame, fleet: str) -> RenderableType:
    """Return purchases and upgrades by what they gain, and what gains nothing in one line.

    Args:
        frame: Columns: status, latency_us, gain_us, gap, bytes_to_send, reason; the candidates' names as index.
        fleet: Its name.
    """
    helps = frame["latency_us"].notna() & ~(frame["gain_us"] <= 0)
    shown = _narrow(f"{visible(fleet)}: what to buy or upgrade next", "change", "gain", "latency", "gap", "to send")
    ms = _in_ms(frame)
    for name, row in frame[helps].iterrows():
        gain = "a plan" if pd.isna(row["gain_us"]) else ms(row["gain_us"])
        send = "-" if pd.isna(row["bytes_to_send"]) else kib(row["bytes_to_send"])
        shown.add_row(Text(visible(str(name))), gain, ms(row["latency_us"]), f"{row['gap']:.1%}", send)
    nothing = frame[~helps & frame["latency_us"].notna()]
    lines = [Text(f"Nothing is gained by: {', '.join(visible(str(name)) for name in nothing.index)}.")]
    return Group(shown, *(lines if len(nothing) else []), *_reasons(frame))


def pareto_text(frame: pd.DataFrame, fleet: str) -> RenderableType:
    """Return a Pareto front as a table; its columns are those of the frame."""
    against = str(frame["against"].iloc[0])
    heads = {"accuracy": "allowed drop", "memory": "all budgets", "energy": "limit"}
    value = "granted" if against == "memory" else against
    shown = _narrow(f"{visible(fleet)}: latency against {against}", heads[against], value, "latency", "bound", "gap")
    ms = _in_ms(frame)
    for _, row in frame.iterrows():
        limit, value = _amounts(against, row["limit"], row["value"])
        shown.add_row(limit, value, ms(row["latency_us"]), ms(row["bound_us"]), f"{row['gap']:.1%}")
    return shown


def _amounts(against: str, limit: float, value: float) -> tuple[str, str]:
    if against == "accuracy":
        return f"{limit:g}", f"{value:.1%}"
    return (f"x{limit:.3g}", kib(value)) if against == "memory" else (f"{limit:.4g} mJ", f"{value:.4g} mJ")


def visible(text: str) -> str:
    """Return a name on one line, cut in the middle where it is long, what cannot be printed escaped."""
    shown = _printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:38]}...{shown[-19:]}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _narrow(title: str, *columns: str) -> Table:
    """Return a table in which names give way to numbers."""
    shown = table(title, *columns)
    shown.box, shown.pad_edge, shown.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for column in shown.columns[1:]:
        column.no_wrap = column.header != "bottleneck"
        column.justify = "left" if column.header == "bottleneck" else "right"
        column.max_width = 14 if column.header == "bottleneck" else None
    shown.columns[0].min_width = 14
    return shown


def _reasons(frame: pd.DataFrame) -> list[Text]:
    """Return a line for each reason, with the scenarios that have it."""
    without = frame[frame["reason"].notna()]
    lines = []
    for reason, rows in without.groupby("reason", sort=False):
        names = [visible(str(name)) for name in rows.index]
        more = f" and {len(names) - 2} more" if len(names) > 3 else ""
        lines.append(Text(f"{'; '.join(names[: 2 if more else 3])}{more}: {_printable(str(reason))}"))
    return lines


def _in_ms(frame: pd.DataFrame, unit: str = " ms") -> Callable[..., str]:
    """Return a function that writes times with three digits of the table's shortest latency."""
    least = frame["latency_us"].min()
    decimals = 1 if least >= 10_000 else 2 if least >= 1000 else 3
    return lambda us, sign="": f"{us / 1000:{sign}.{decimals}f}{unit}"
