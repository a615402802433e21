"""Comparison of our solver, the direct models and the baselines on every instance, as a Markdown page."""

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.solve.child import DIRECT, PRESSED, Result
from benchmarks.solve.instances import MIN_RETENTION, SIZES, Size
from benchmarks.solve.jobs import Job, JobResults

# Written by hand: what the solver was before, and where the gap is left.
_NOTES = Path(__file__).parent / "notes.md"
OURS = "planner"
BASELINES = ("random-equal", "greedy", "memory-proportional")
NUM_SEEDS = 5
TIME_LIMITS_S = {"tiny": 2.0, "S": 10.0, "M": 60.0, "R": 30.0, "L": 120.0, "XL": 180.0}
DIRECT_LIMIT_S = 60.0
# The plain baselines know no time limit: other only bounds the time of their process.
BASELINE_LIMIT_S, PRESSED_LIMIT_S = 300.0, 120.0
# A baseline that is slower than this [s] gets no further seeds, and is not pressed.
_SLOW_S = 30.0
# One that is slower than this is pressed with one seed only.
_ONE_SEED_S = 0.5
# Greedy tries every pruning of every subset on every free device: with more devices it takes many minutes.
_MAX_GREEDY_DEVICES = 500


@dataclass(frozen=True)
class Entry:
    """Results of one method on one instance, one for each seed."""

    method: str
    results: tuple[Result, ...]

    @property
    def plans(self) -> list[Result]:
        """Results with a plan, the best first."""
        return sorted(
            (r for r in self.results if r.get("latency_us") is not None), key=lambda r: float(r["latency_us"])
        )

    def median(self, key: str) -> float | None:
        """Return the median of a value over the plans; None if there are none."""
        return statistics.median(r[key] for r in self.plans) if self.plans else None

    def best(self, key: str) -> float | None:
        """Return a value of the best plan; None if there is none."""
        return self.plans[0][key] if self.plans else None

    @property
    def seconds(self) -> float | None:
        """Median time of a run, with or without a plan."""
        times = [r["seconds"] for r in self.results if r["seconds"] is not None]
        return statistics.median(times) if times else None


@dataclass(frozen=True)
class Comparison:
    """Results of all methods on one instance, ours first."""

    size: Size
    time_limit_s: float
    entries: tuple[Entry, ...]

    def entry(self, method: str) -> Entry | None:
        """Return the entry of a method, or None if it was not run."""
        return next((entry for entry in self.entries if entry.method == method), None)


# Text in place of a latency; for other statuses it is the result's note.
_NO_PLAN = {"no plan": "no plan", "unknown": "no plan", "infeasible": "called infeasible", "failed": "failed"}


def compare(store: JobResults, names: Sequence[str], speed_up: float = 1.0) -> list[Comparison]:
    """Run every method on every instance of these sizes; all time limits are divided by `speed_up`."""
    sizes = [(name, size) for name in names for size in SIZES[name]]
    for size in (size for _, size in sizes if not size.is_there):
        print(f"{size.name}: left out, {size.profile} does not exist.", file=sys.stderr)
    return [_compared(store, size, TIME_LIMITS_S[name] / speed_up, speed_up) for name, size in sizes if size.is_there]


def _compared(store: JobResults, size: Size, limit_s: float, speed_up: float) -> Comparison:
    entries = [Entry(OURS, (store.result(Job(size, OURS, limit_s)),))]
    # Direct models state one width and one precision for each device.
    for method in () if size.profile else DIRECT:
        entries.append(Entry(method, (store.result(Job(size, method, DIRECT_LIMIT_S / speed_up)),)))
    for method in BASELINES:
        if method == "greedy" and size.num_devices > _MAX_GREEDY_DEVICES:
            continue
        plain = _seeds(store, size, method, BASELINE_LIMIT_S / speed_up)
        entries.append(plain)
        if plain.plans and (plain.seconds or 0) < _SLOW_S:
            seeds = NUM_SEEDS if (plain.seconds or 0) < _ONE_SEED_S else 1
            entries.append(_seeds(store, size, method + PRESSED, PRESSED_LIMIT_S / speed_up, seeds))
    return Comparison(size, limit_s, tuple(entries))


def _seeds(store: JobResults, size: Size, method: str, limit_s: float, num_seeds: int = NUM_SEEDS) -> Entry:
    results: list[Result] = []
    for seed in range(num_seeds):
        results.append(store.result(Job(size, method, limit_s, seed)))
        if (results[-1]["seconds"] or 0) > _SLOW_S:
            break
    return Entry(method, tuple(results))


def page(comparisons: Sequence[Comparison], plot: Path | None) -> str:
    """Return the page as markdown, with a plot if there is one."""
    limits = dict.fromkeys(c.time_limit_s for c in comparisons)
    limited = [
        f"{limit:g} s for {', '.join(c.size.name for c in comparisons if c.time_limit_s == limit)}" for limit in limits
    ]
    lines = [
        "# The planner's solver beside direct models and baselines",
        "",
        f"{machine()}. `make bench-solve` runs it again.",
        "",
        "Instances are named classes x devices: a ViT-Base (336 heads and channel groups) whose importance has the "
        "shape of the shipped digits profile's, over 3 to 5 kinds of devices (20 for 1000x1000) whose speeds spread "
        "over a factor of 8 and whose memory binds. Roomy twins have so much memory that the baselines find plans "
        "too, and some classes are in strong clusters, at the floors in their names. Real are `digits`, the demo; "
        "DINOv2-small, on four Pi 4; and CIFAR-100, a ViT trained on it, on ten boards. See "
        "`benchmarks/solve/instances.py`.",
        "",
        f"- **planner** is `solve --min-retention {MIN_RETENTION:g}`, unless a name says another floor, within "
        f"{'; '.join(limited)}.",
        "- **CP-SAT** (8 workers) and **HiGHS** are given the whole problem as one model, "
        f"{DIRECT_LIMIT_S:g} s of solving beside the time to build it (`benchmarks/solve/formulation.py`); "
        "they state no widths, which real models have.",
        f"- **random-equal**, **greedy** and **memory-proportional** are the baselines, {NUM_SEEDS} seeds each: the "
        "median, and the best in brackets (greedy not on 1000 devices, where it takes many minutes). They do not "
        "look for the least latency, but prune as little as memory allows.",
        "- **pressed** gives a baseline a latency limit, the lowest at which it still finds a plan (to 0.5 %): what "
        "its way to assign classes is worth when it prunes as far as the floors allow.",
        "",
        "All plans hold the same floors and budgets and have passed `planner check`. Latency is that of the slowest "
        "device and the fusion; memory is the peak of the whole process.",
        "",
        *_summary(comparisons),
        "",
    ]
    if plot is not None:
        lines += [f"![How time and gap grow]({plot.name})", ""]
    notes = _NOTES.read_text(encoding="utf-8").splitlines()
    return "\n".join([*lines, *notes, "", "## All results", "", *_table(comparisons)]) + "\n"


def machine() -> str:
    """Return a description of the machine and the software."""
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("ortools", "numpy", "scipy"))
    cpu = models[0] if models else platform.processor() or platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB; Python {platform.python_version()}, {packages}"


def _summary(comparisons: Sequence[Comparison]) -> list[str]:
    lines = [
        "Over all instances, each method against ours: latency and bottleneck (the slowest device alone) divided by "
        "ours; of seeds, the median.",
        "",
        "| method | instances with a plan | latency ÷ ours: median | worst | bottleneck ÷ ours: median | worst | "
        "time ÷ ours: median |",
        "|---|---|---|---|---|---|---|",
    ]
    ran = {entry.method for c in comparisons for entry in c.entries}
    for method in (*DIRECT, *BASELINES, *(name + PRESSED for name in BASELINES)):
        if method not in ran:
            continue
        tried = [(c.entry(method), c.entry(OURS)) for c in comparisons]
        pairs = [(other, ours) for other, ours in tried if other is not None and ours is not None]
        columns = []
        for key in ("latency_us", "bottleneck_us"):
            ratios = _ratios((other.median(key), ours.median(key)) for other, ours in pairs)
            columns += [_number(statistics.median(ratios)), _number(max(ratios))] if ratios else ["", ""]
        times = _ratios((other.seconds, ours.seconds) for other, ours in pairs)
        columns.append(_number(statistics.median(times)) if times else "")
        plans = sum(bool(other.plans) for other, _ in pairs)
        lines.append(f"| {method} | {plans} of {len(comparisons)} | {' | '.join(columns)} |")
    return lines


def _ratios(pairs: Iterable[tuple[float | None, float | None]]) -> list[float]:
    return [other / ours for other, ours in pairs if other is not None and ours]


def _table(comparisons: Sequence[Comparison]) -> list[str]:
    lines = [
        "| instance | method | latency [ms] | bound [ms] | gap | time [s] | memory [MB] | latency ÷ ours | "
        "time ÷ ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in comparisons:
        ours = c.entries[0]
        lines += [_row(c.size.name, entry, ours) for entry in c.entries]
    return lines


def _row(name: str, entry: Entry, ours: Entry) -> str:
    several = len(entry.results) > 1
    latency_us, best_us = entry.median("latency_us"), entry.best("latency_us")
    our_us, our_seconds = ours.median("latency_us"), ours.seconds
    if latency_us is None or best_us is None:
        latency, ratio = _NO_PLAN.get(entry.results[0]["status"], entry.results[0].get("note", "")), ""
    else:
        missing = len(entry.results) - len(entry.plans)
        latency = f"{latency_us / 1000:.1f}" + (f" ({best_us / 1000:.1f})" if several else "")
        latency += f"; {missing} of {len(entry.results)} no plan" if missing else ""
        latency += "; cut short" if any(r.get("note", "").startswith("stopped") for r in entry.plans) else ""
        ratio = "" if our_us is None else _number(latency_us / our_us)
        ratio += f" ({_number(best_us / our_us)})" if several and our_us is not None else ""
    bound = gap = ""
    result = entry.results[0]
    if entry.method == OURS or entry.method in DIRECT:
        bound_us = result.get("bound_us")
        bound = f"{bound_us / 1000:.1f}" if bound_us else ""
        if bound_us and latency_us:
            gap = f"{(latency_us - bound_us) / latency_us:.1%}"
    seconds = entry.seconds
    time = "" if seconds is None else f"{seconds:.2f}"
    slower = "" if seconds is None or not our_seconds else _number(seconds / our_seconds)
    memory = max((r["peak_mb"] for r in entry.results if "peak_mb" in r), default=None)
    size = "" if memory is None else f"{memory:.0f}"
    return f"| {name} | {entry.method} | {latency} | {bound} | {gap} | {time} | {size} | {ratio} | {slower} |"


def _number(value: float) -> str:
    """Return a number with three significant digits, a large one without decimals."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
