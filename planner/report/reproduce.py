"""How to make a plan again: the commands, with the flags of a goal that are not the defaults, for a POSIX shell."""

import shlex
from collections.abc import Iterator

from planner.schema import Goal, GoalFile, Plan, to_json
from planner.solver import DEFAULT_TIME_LIMIT_S


def commands(plan: Plan, profile: str) -> str:
    """Return the commands that solve, check and report, a line each.

    Args:
        plan: What came of them.
        profile: A shipped profile's name, or a file's.
    """
    on = f"--devices devices.json --profile {shlex.quote(profile)}"
    goal = "--goal goal.json" if goal_file(plan.goal) else " ".join(map(shlex.quote, _flags(plan.goal)))
    # Out of time, a plan is what was best so far: again as much time is needed.
    limit = f"--time-limit {plan.solver.seconds:.0f}" if plan.solver.seconds > DEFAULT_TIME_LIMIT_S + 1 else ""
    solve = ["planner solve", on, goal, f"--seed {plan.solver.seed}" * (plan.solver.seed > 0), limit]
    return "\n".join(
        (
            " ".join(part for part in (*solve, "--out plan.json") if part),
            f"planner check plan.json {on}",
            f"planner report plan.json {on} --out report.html",
        )
    )


def goal_file(goal: Goal) -> str | None:
    """Return the goal as the text of a file where flags cannot say it: names with their separators in them."""
    classes = [name for group in (*goal.together, *goal.apart) for name in group]
    devices = [name for placed in (goal.pin, goal.forbid) for names in placed.values() for name in names]
    if any("," in name for name in classes) or any("=" in name for name in devices):
        return to_json(GoalFile.model_validate(goal.model_dump()))
    return None


def _flags(goal: Goal) -> Iterator[str]:
    default = Goal()
    for key in ("objective", "min_retention", "max_latency_ms", "max_energy_mj", "survive", "method"):
        if (value := getattr(goal, key)) != getattr(default, key):
            yield f"{_flag(key)}={value}"
    # A retention floor stands in place of a drop.
    if goal.min_retention is None and goal.max_accuracy_drop != default.max_accuracy_drop:
        yield f"--max-accuracy-drop={goal.max_accuracy_drop}"
    for key in ("pin", "forbid"):
        for name, devices in getattr(goal, key).items():
            yield from (f"{_flag(key)}={name}={device}" for device in devices)
    for key in ("together", "apart"):
        yield from (f"{_flag(key)}={','.join(group)}" for group in getattr(goal, key))
    yield from (f"--leave-out={name}" for name in goal.leave_out)
    if goal.leave_idle:
        yield "--leave-idle"


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
