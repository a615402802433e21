"""What the runtime is to reach, and whether a measurement does."""

from collections.abc import Mapping

from benchmarks.runtime.endurance import Kills, Soak
from benchmarks.runtime.fan_out import FanOut
from planner.schema import Rehearsal

_MAX_FAN_OUT_US = 1000
# Over its prediction at the median, whichever is more.
_MAX_DEMO_OVER, _MAX_DEMO_OVER_US = 0.10, 700
_MAX_TINY_OVER = 0.03
_MAX_BACK_S = 2.0
# What the allocator may keep without anything being lost.
_MAX_GROWTH_BYTES = 2**20


def fan_out_goal(row: FanOut) -> str:
    """Return whether the smallest images are answered soon enough, in a line."""
    return _line("at most 1 ms at the median for 256 bytes", row.p50 <= _MAX_FAN_OUT_US)


def demo_goal(run: Rehearsal) -> str:
    """Return whether the demo's answers are as fast as they are predicted, in a line."""
    goal = "at most 10 % or 0.7 ms over the prediction at the median, whichever is more"
    return _line(goal, _is_within(run, _MAX_DEMO_OVER, _MAX_DEMO_OVER_US))


def tiny_goals(run: Rehearsal) -> str:
    """Return whether answers of large sub-models are as fast as predicted, and within their memory, a line each."""
    fits = all(d.peak_bytes is not None and d.peak_bytes <= d.planned_memory_bytes for d in run.devices)
    return _line("at most 3 % over the prediction at the median", _is_within(run, _MAX_TINY_OVER, 0)) + _line(
        "memory never over the plan's", fits
    )


def kills_goals(k: Kills) -> str:
    """Return whether nothing is lost with a device, and every device comes back soon, a line each."""
    return (
        _line("no answer lost", k.num_lost == 0)
        + _line("none later than the deadline", k.worst_us <= k.deadline_us)
        + _line(
            "every device back 2 s after its worker listens again",
            len(k.back_s) == k.num_kills and max(k.back_s, default=0.0) <= _MAX_BACK_S,
        )
    )


def soak_goal(s: Soak) -> str:
    """Return whether no process grows, in a line."""
    return _line("no process grows by a MiB", max_growth(s.first_bytes, s.last_bytes) < _MAX_GROWTH_BYTES)


def max_growth(first_bytes: Mapping[str, int], last_bytes: Mapping[str, int]) -> int:
    """Return by how much the process grew that grew most [bytes]."""
    return max(last_bytes[name] - first for name, first in first_bytes.items())


def _is_within(run: Rehearsal, share: float, us: float) -> bool:
    """Return whether the median latency is over the prediction by at most a share of it, or some microseconds."""
    predicted, measured = run.latency.predicted_us, run.latency.measured_us
    assert predicted is not None
    assert measured is not None
    return measured.p50 - predicted <= max(share * predicted, us)


def _line(goal: str, is_met: bool) -> str:
    return f"\nGoal: {goal}: {'met' if is_met else '**missed**'}.\n"
