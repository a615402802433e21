"""Commands that reproduce a plan in a POSIX shell, with those flags of its goal that are not the defaults."""

import shlex
from collections.abc import Iterator

from planner.library import folder, load_profile
from planner.schema import Fleet, Goal, GoalFile, Plan, Profile, sha256_of, to_json
from planner.solver import DEFAULT_TIME_LIMIT_S


def reproduction(plan: Plan, profile: Profile, fleet: Fleet) -> dict[str, object]:
    """Return an instruction (text), the commands, and the files that they need with their contents (files)."""
    shipped = _is_shipped(profile)
    files = [("devices.json", to_json(fleet))]
    if (goal := goal_file(plan.goal)) is not None:
        files.append(("goal.json", goal))
    text = f"Put {' and '.join(name for name, _ in files)} below into a folder, and there:"
    if not shipped:
        text = f"You need the profile with the SHA-256 above as profile.json. {text}"
    return {"text": text, "commands": commands(plan, profile.model if shipped else "profile.json"), "files": files}


def commands(plan: Plan, profile: str) -> str:
    """Return the commands that solve, check and report, a line each.

    Args:
        plan: Plan to reproduce.
        profile: Name of a shipped profile, or of a file.
    """
    on = f"--devices devices.json --profile {shlex.quote(profile)}"
    goal = "--goal goal.json" if goal_file(plan.goal) else " ".join(map(shlex.quote, _flags(plan.goal)))
    # A plan that ran out of time is the best so far, so as much time is needed again.
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
    """Return the text of a goal.json if flags cannot express the goal, as names have the flags' separators in them."""
    classes = [name for group in (*goal.together, *goal.apart) for name in group]
    devices = [name for placed in (goal.pin, goal.forbid) for names in placed.values() for name in names]
    if any("," in name for name in classes) or any("=" in name for name in devices):
        return to_json(GoalFile.model_validate(goal.model_dump()))
    return None


def _is_shipped(profile: Profile) -> bool:
    """Return whether the profile is one that comes with the planner, under its model's name."""
    shipped = {path.stem for path in folder("profiles").glob("*.json")}
    return profile.model in shipped and sha256_of(load_profile(profile.model)) == sha256_of(profile)


def _flags(goal: Goal) -> Iterator[str]:
    default = Goal()
    for key in (
        "objective",
        "min_retention",
        "accuracy_confidence",
        "max_latency_ms",
        "max_energy_mj",
        "survive",
        "method",
    ):
        if (value := getattr(goal, key)) != getattr(default, key):
            yield f"{_flag(key)}={value}"
    # A retention floor stands in place of a drop.
    if goal.accuracy_drop not in (None, default.accuracy_drop):
        yield f"--max-accuracy-drop={goal.accuracy_drop}"
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
