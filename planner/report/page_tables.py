"""Tables of the page: the numbers of its plots as text."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx
import pandas as pd

from planner.report.frames import devices_frame
from planner.report.plan_frames import kept_frame, memory_frame, retention_frame, times_frame
from planner.report.profile_frames import importance_frame
from planner.report.rehearsal_text import change_text, is_sum, memory_texts, origin_text, steps_of
from planner.report.text import MAX_IDLE_ROWS
from planner.schema import Fleet, Plan, Profile, Rehearsal, Step
from planner.units import format_bytes, format_ms, format_number, format_share, visible

TableRow = dict[str, Any]


@dataclass(frozen=True)
class TextTable:
    """Table of texts; the first of a row is its name."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


@dataclass(frozen=True)
class _Column:
    """Column: heading with its unit, key of the value in a row, and formatter of the value; a dash if it is missing."""

    heading: str
    key: str
    format_value: Callable[[Any], str] = str
    numeric: bool = True

    def text(self, row: TableRow) -> str:
        value = row.get(self.key)
        missing = value is None or (isinstance(value, float) and pd.isna(value))
        return "-" if missing else visible(self.format_value(value))


def devices_table(plan: Plan, profile: Profile, fleet: Fleet) -> TextTable:
    """Return classes, sizes, memory and times of each device, the idle ones last; many idle ones are left out."""
    dims = {a.device: a.embed_dim for a in plan.assignments}
    rows = _rows(devices_frame(plan, profile, fleet), "device")
    if len(plan.idle) > MAX_IDLE_ROWS:
        rows = [row for row in rows if row["device"] in dims]
    for row in rows:
        row["embed_dim"] = dims.get(row["device"])
        row["device"] += " (bottleneck)" if row["bottleneck"] is True else ""
    sources = {a.estimated for a in plan.assignments}
    return _table(
        "What each device runs and takes",
        rows,
        _name("device"),
        _name("kind"),
        _Column("classes", "classes", lambda names: ", ".join(names) or "idle", numeric=False),
        # What a narrow window cuts off is what matters least.
        _time("latency"),
        _Column("memory", "memory_bytes", format_bytes),
        _Column("budget", "budget_bytes", format_bytes),
        *_storage_columns(fleet),
        *(_count(key) for key in ("heads", "channels", "embed_dim")),
        _Column("least retention", "least_retention", format_share),
        _name("precision"),
        _Column("energy [mJ]", "energy_mj", format_number),
        *([_Column("times", "estimated", _source, numeric=False)] if len(sources) > 1 else []),
    )


def times_table(plan: Plan) -> TextTable:
    """Return the numbers of the timeline."""
    columns = (_time(name) for name in ("send", "compute", "return", "latency", "fusion"))
    return _table("Times", _rows(times_frame(plan), "device"), _name("device"), *columns)


def kept_table(plan: Plan, profile: Profile) -> TextTable:
    """Return the kept heads and channels of each block, a row for each device and part."""
    rows: dict[tuple[str, str], TableRow] = {}
    for cell in _rows(kept_frame(plan, profile), "row"):
        row = rows.setdefault((cell["device"], cell["part"]), dict(cell))
        row[str(cell["block"])] = f"{cell['kept']} of {cell['of']}"
    blocks = (_Column(f"block {l}", str(l)) for l in range(profile.depth))
    return _table("What is kept", rows.values(), _name("device"), _name("part"), _count("embed_dim"), *blocks)


def memory_table(plan: Plan, fleet: Fleet) -> TextTable:
    """Return memory and storage in use, and budgets."""
    return _table(
        "Memory and storage" if fleet.has_storage else "Memory",
        _rows(memory_frame(plan, fleet), "device"),
        _name("device"),
        _Column("in use", "memory_bytes", format_bytes),
        _Column("budget", "budget_bytes", format_bytes),
        _Column("share", "share", format_share),
        *_storage_columns(fleet),
    )


def _storage_columns(fleet: Fleet) -> Iterator[_Column]:
    """Yield the columns of storage, where any device has a budget for it."""
    if fleet.has_storage:
        yield _Column("storage", "storage_bytes", format_bytes)
        yield _Column("storage budget", "storage_budget_bytes", format_bytes)


def classes_table(plan: Plan, profile: Profile) -> TextTable:
    """Return the devices that serve each class, with its retention there."""
    rows = []
    for name, column in retention_frame(plan, profile).items():
        retentions = column.dropna()
        where = ", ".join(f"{device} {format_share(retention)}" for device, retention in retentions.items())
        rows.append({"class": str(name), "devices": len(retentions), "where": where})
    return _table("Classes", rows, _name("class"), _count("devices"), _name("where", "retention there"))


def importance_table(profile: Profile) -> TextTable:
    """Return the share of each class's importance in each half-block."""
    frame = importance_frame(profile)
    halves = [f"block {l} {part}" for l in range(profile.depth) for part in ("heads", "channels")]
    columns = [_Column(half, str(i), format_share) for i, half in enumerate(halves)]
    rows = [
        {"class": name} | {str(i): share for i, share in enumerate(shares)}
        for name, shares in zip(profile.classes, frame.to_numpy().tolist(), strict=True)
    ]
    return _table("Importance", rows, _name("class"), *columns)


def hops_table(graph: nx.Graph) -> TextTable:
    """Return the hops of the fleet's graph that messages take."""
    rows = [{"hop": f"{a} – {b}", **hop} for a, b, hop in graph.edges(data=True) if hop["used"]]
    return _table(
        "Links in use",
        rows,
        _name("hop"),
        _Column("bandwidth [Mbit/s]", "bandwidth_mbps", "{:,.6g}".format),
        _Column("latency [ms]", "latency_ms", "{:,.6g}".format),
        _Column("shared", "shared", lambda by: by if isinstance(by, str) else "yes" if by else "no", numeric=False),
    )


def scenarios_table(frame: pd.DataFrame) -> TextTable:
    """Return the rows of a what-if."""
    return _table(
        "Scenarios",
        _rows(frame, "scenario"),
        _name("scenario"),
        _name("status"),
        _time("latency"),
        _Column("change [ms]", "change_us", lambda us: format_ms(us, 3, signed=True)),
        _time("bound"),
        _name("bottleneck"),
        _count("devices_used"),
        _count("classes_moved"),
        _Column("to send", "bytes_to_send", format_bytes),
        _name("reason"),
    )


def front_table(frame: pd.DataFrame) -> TextTable:
    """Return the points of a Pareto front."""
    against = str(frame["against"].iloc[0])
    columns: dict[str, tuple[str, str, Callable[[float], str]]] = {
        "accuracy": ("allowed drop", "predicted accuracy", _percent),
        "memory": ("budgets times", "memory granted", format_bytes),
        "energy": ("at most [mJ]", "energy [mJ]", format_number),
    }
    limit, value, format_value = columns[against]
    return _table(
        f"Latency against {against}",
        _rows(frame, "point"),
        _Column(limit, "limit", format_number),
        _Column(value, "value", format_value),
        _time("latency"),
        _time("bound"),
        _Column("gap", "gap", _percent),
        _name("status"),
    )


def steps_table(rehearsal: Rehearsal) -> TextTable:
    """Return predicted and measured times of each step of a rehearsal."""
    return _steps("Steps", steps_of(rehearsal), _name("step"), _name("is"))


def rehearsed_latencies_table(rehearsal: Rehearsal) -> TextTable:
    """Return predicted and measured latency of each device and of the whole answer."""
    return _steps("Latencies", ((device, name, step) for device, name, step in steps_of(rehearsal) if is_sum(name)))


def _steps(caption: str, steps: Iterable[tuple[str, str, Step]], *columns: _Column) -> TextTable:
    rows = []
    for device, name, step in steps:
        row: TableRow = {"device": device, "step": name, "predicted_us": step.predicted_us}
        if step.measured_us is not None:
            row |= {f"{key}_us": us for key, us in step.measured_us.model_dump().items()}
        rows.append(row | {"change": change_text(step) or None, "is": origin_text(name, step) or None})
    times = (_time(name) for name in ("predicted", "p10", "p50", "p99"))
    return _table(caption, rows, _name("device"), *columns[:1], *times, _Column("change", "change"), *columns[1:])


def rehearsed_memory_table(rehearsal: Rehearsal) -> TextTable:
    """Return planned memory and the peaks of the workers of a rehearsal."""
    keys = ("planned", "of it runtime", "peak here", "without a model")
    rows = [{"device": d.device} | dict(zip(keys, memory_texts(d), strict=True)) for d in rehearsal.devices]
    return _table("Memory of each worker", rows, _name("device"), *(_Column(key, key) for key in keys))


def _table(caption: str, rows: Iterable[TableRow], *columns: _Column) -> TextTable:
    texts = tuple(tuple(column.text(row) for column in columns) for row in rows)
    return TextTable(caption, tuple(c.heading for c in columns), texts, tuple(c.numeric for c in columns))


def _rows(frame: pd.DataFrame, index: str) -> list[TableRow]:
    keys = [str(key) for key in frame.columns]
    rows = zip(frame.index, *(frame[key] for key in frame.columns), strict=True)
    return [{index: str(name)} | dict(zip(keys, values, strict=True)) for name, *values in rows]


def _percent(share: float) -> str:
    return format_share(share, 1)


def _source(estimated: bool) -> str:
    return "estimated" if estimated else "measured"


def _name(key: str, heading: str = "") -> _Column:
    return _Column(heading or key, key, numeric=False)


def _count(key: str) -> _Column:
    return _Column(key.replace("_", " "), key, "{:,.0f}".format)


def _time(name: str) -> _Column:
    # To the microsecond: these tables are where exact numbers are looked up.
    return _Column(f"{name} [ms]", f"{name}_us", lambda us: format_ms(us, 3))
