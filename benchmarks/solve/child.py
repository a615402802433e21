"""Run one job in a process of its own, whose peak memory is that of the job.

python -m benchmarks.solve.child JOB OUT

JOB is a file with a job as JSON (see `jobs`), OUT the file for its result.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.solve import direct
from benchmarks.solve.instances import Size, goal, instance
from planner.errors import PlannerError
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import SolveOptions, solve

Result = dict[str, Any]

# Suffix of a baseline that is run at the lowest latency limit at which it still finds a plan.
PRESSED = ", pressed"
# Relative accuracy to which bisection finds that limit.
_TOLERANCE = 0.005


def main(job_file: str, out_file: str) -> None:
    """Run one job and write its result."""
    job = json.loads(Path(job_file).read_text())
    size = Size(**job["size"])
    profile, fleet = instance(size)
    aim = goal(size)
    before_mb = _peak_mb()
    method, seed, limit_s = job["method"], job["seed"], job["time_limit_s"]
    if method == "planner":
        result = _planned(profile, fleet, aim, seed, limit_s)
    elif method in DIRECT:
        result = _direct(DIRECT[method](profile, fleet, aim, time_limit_s=limit_s))
    elif method.endswith(PRESSED):
        result = _pressed(profile, fleet, _changed(aim, method=method.removesuffix(PRESSED)), seed, limit_s)
    else:
        result = _planned(profile, fleet, _changed(aim, method=method), seed, limit_s)
    result |= {"peak_mb": _peak_mb(), "peak_mb_before": before_mb}
    Path(out_file).write_text(json.dumps(result))


DIRECT: dict[str, Callable[..., direct.DirectResult]] = {
    "CP-SAT": direct.solve_by_cp_sat,
    "HiGHS": direct.solve_by_highs,
}


def _changed(aim: Goal, **changes: Any) -> Goal:
    return Goal.model_validate(aim.model_dump() | changes)


def _planned(profile: Profile, fleet: Fleet, goal: Goal, seed: int, limit_s: float) -> Result:
    """Run the planner's solver; `events` are times [s] with the best latency and the bound [us] at each change."""
    started = time.monotonic()
    events: list[tuple[float, float | None, float]] = []

    def progress(best: float | None, bound: float) -> None:
        if not events or events[-1][1:] != (best, bound):
            events.append((round(time.monotonic() - started, 3), best, bound))

    try:
        plan = solve(profile, fleet, goal, SolveOptions(seed=seed, time_limit_s=limit_s, progress=progress))
    except PlannerError as error:
        return {"status": "no plan", "note": str(error), "seconds": time.monotonic() - started, "events": events}
    return _result(plan) | {"seconds": time.monotonic() - started, "events": events}


def _pressed(profile: Profile, fleet: Fleet, aim: Goal, seed: int, limit_s: float) -> Result:
    """Run a baseline at ever lower latency limits, by bisection, and return the fastest of its plans."""
    deadline = time.monotonic() + limit_s
    best = _planned(profile, fleet, aim, seed, limit_s)
    low_us = 0
    seconds = best["seconds"]
    while best["status"] != "no plan" and best["latency_us"] - low_us > _TOLERANCE * best["latency_us"]:
        if time.monotonic() > deadline:
            best["note"] = f"stopped after {limit_s:g} s, before its lowest latency was known"
            break
        # Bisection between the highest limit without a plan and the fastest plan so far.
        limit_us = (low_us + best["latency_us"]) // 2
        result = _planned(profile, fleet, _changed(aim, max_latency_ms=limit_us / 1000), seed, limit_s)
        seconds += result["seconds"]
        if result["status"] == "no plan":
            low_us = limit_us
        else:
            best = result
    return best | {"seconds": seconds}


def _direct(outcome: direct.DirectResult) -> Result:
    result = {"status": outcome.status} if outcome.plan is None else _result(outcome.plan)
    return result | {
        "bound_us": outcome.bound_us,
        "seconds": outcome.seconds,
        "build_seconds": outcome.build_seconds,
        "nonzeros": outcome.nonzeros,
        "note": outcome.note,
    }


def _result(plan: Plan) -> Result:
    return {
        "status": plan.status,
        "latency_us": plan.latency_us,
        "bottleneck_us": plan.bottleneck.latency_us,
        "bound_us": plan.bound_us,
        "num_used": len(plan.assignments),
    }


def _peak_mb() -> float:
    """Return the peak memory of this process [MB]."""
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
