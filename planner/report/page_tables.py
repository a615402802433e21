"""The tables of the page: the numbers of its pictures, as people read them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import pandas as pd

from planner.report.frames import devices_frame
from planner.report.plan_frames import kept_frame, memory_frame, served_frame, times_frame
from planner.report.profile_frames import needs_frame
from planner.schema import Fleet, Plan, Profile
from planner.units import percent, size, visible

TableRow = dict[str, Any]

# More idle devices than these are counted, not listed.
MOST_IDLE = 24


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first of a row is its name."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


@dataclass(frozen=True)
class _Column:
    """A heading with its unit, and what is shown of a row's value; a dash where that is missing."""

    heading: str
    key: str
    show: Callable[[Any], str] = str
    numeric: bool = True

    def text(self, row: TableRow) -> str:
        value = row.get(self.key)
        missing = value is None or (isinstance(value, float) and pd.isna(value))
        return "-" if missing else visible(self.show(value))


def devices_table(plan: Plan, profile: Profile, fleet: Fleet) -> Table:
    """Return everything that is known of each device, the idle ones last; of many idle ones nothing."""
    dims = {a.device: a.embed_dim for a in plan.assignments}
    rows = _rows(devices_frame(plan, profile, fleet), "device")
    if len(plan.idle) > MOST_IDLE:
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
        *(_count(key) for key in ("embed_dim", "heads", "channels")),
        _name("precision"),
        _Column("memory", "memory_bytes", size),
        _Column("budget", "budget_bytes", size),
        *(_time(name) for name in ("send", "compute", "return", "latency")),
        _Column("least retention", "least_retention", percent),
        _Column("energy [mJ]", "energy_mj", "{:,.2f}".format),
        *([_Column("times", "estimated", _source, numeric=False)] if len(sources) > 1 else []),
    )


def times_table(plan: Plan) -> Table:
    """Return the numbers of the time line."""
    columns = (_time(name) for name in ("send", "compute", "return", "latency", "fusion"))
    return _table("Times", _rows(times_frame(plan), "device"), _name("device"), *columns)


def kept_table(plan: Plan, profile: Profile) -> Table:
    """Return the kept heads and channels of each block, a row for each device and part."""
    rows: dict[tuple[str, str], TableRow] = {}
    for cell in _rows(kept_frame(plan, profile), "row"):
        row = rows.setdefault((cell["device"], cell["part"]), dict(cell))
        row[str(cell["block"])] = f"{cell['kept']} of {cell['of']}"
    blocks = (_Column(f"block {l}", str(l)) for l in range(profile.depth))
    return _table("What is kept", rows.values(), _name("device"), _name("part"), _count("embed_dim"), *blocks)


def memory_table(plan: Plan, fleet: Fleet) -> Table:
    """Return memory in use and budgets."""
    columns = (("in use", "memory_bytes", size), ("budget", "budget_bytes", size), ("share", "share", percent))
    shown = (_Column(*column) for column in columns)
    return _table("Memory", _rows(memory_frame(plan, fleet), "device"), _name("device"), *shown)


def classes_table(plan: Plan, profile: Profile) -> Table:
    """Return where each class is, and what is retained of it there."""
    rows = []
    for name, column in served_frame(plan, profile).items():
        served = column.dropna()
        where = ", ".join(f"{device} {percent(kept)}" for device, kept in served.items())
        rows.append({"class": str(name), "devices": len(served), "where": where})
    return _table("Classes", rows, _name("class"), _count("devices"), _name("where", "retention there"))


def importance_table(profile: Profile) -> Table:
    """Return the share of each class's importance in each half-block."""
    frame = needs_frame(profile)
    halves = [f"block {l} {part}" for l in range(profile.depth) for part in ("heads", "channels")]
    columns = [_Column(half, str(i), percent) for i, half in enumerate(halves)]
    rows = [
        {"class": name} | {str(i): share for i, share in enumerate(shares)}
        for name, shares in zip(profile.classes, frame.to_numpy().tolist(), strict=True)
    ]
    return _table("Importance", rows, _name("class"), *columns)


def hops_table(graph: nx.Graph) -> Table:
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


def scenarios_table(frame: pd.DataFrame) -> Table:
    """Return the rows of a what-if."""
    return _table(
        "Scenarios",
        _rows(frame, "scenario"),
        _name("scenario"),
        _name("status"),
        _time("latency"),
        _Column("change [ms]", "change_us", lambda us: f"{us / 1000:+,.3f}"),
        _time("bound"),
        _name("bottleneck"),
        _count("devices_used"),
        _count("classes_moved"),
        _Column("to send", "bytes_to_send", size),
        _name("reason"),
    )


def front_table(frame: pd.DataFrame) -> Table:
    """Return the points of a Pareto front."""
    against = str(frame["against"].iloc[0])
    limit, value, show = {
        "accuracy": ("allowed drop", "predicted accuracy", "{:.1%}".format),
        "memory": ("budgets times", "memory granted", size),
        "energy": ("at most [mJ]", "energy [mJ]", "{:,.2f}".format),
    }[against]
    return _table(
        f"Latency against {against}",
        _rows(frame, "point"),
        _Column(limit, "limit", "{:.4g}".format),
        _Column(value, "value", show),
        _time("latency"),
        _time("bound"),
        _Column("gap", "gap", "{:.1%}".format),
        _name("status"),
    )


def _table(caption: str, rows: Iterable[TableRow], *columns: _Column) -> Table:
    texts = tuple(tuple(column.text(row) for column in columns) for row in rows)
    return Table(caption, tuple(c.heading for c in columns), texts, tuple(c.numeric for c in columns))


def _rows(frame: pd.DataFrame, index: str) -> list[TableRow]:
    keys = [str(key) for key in frame.columns]
    rows = zip(frame.index, *(frame[key] for key in frame.columns), strict=True)
    return [{index: str(name)} | dict(zip(keys, values, strict=True)) for name, *values in rows]


def _source(estimated: bool) -> str:
    return "estimated" if estimated else "measured"


def _name(key: str, heading: str = "") -> _Column:
    return _Column(heading or key, key, numeric=False)


def _count(key: str) -> _Column:
    return _Column(key.replace("_", " "), key, "{:,.0f}".format)


def _time(name: str) -> _Column:
    return _Column(f"{name} [ms]", f"{name}_us", lambda us: f"{us / 1000:,.3f}")
