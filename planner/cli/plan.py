"""Commands that make, check and show plans; none of them imports torch."""

import time
from pathlib import Path
from typing import Annotated

import typer

from planner.cli import terminal
from planner.cli.app import check_out, checked_fleet, command, naming, print_plan
from planner.cli.options import (
    AccuracyConfidence,
    Apart,
    Deterministic,
    Devices,
    Forbids,
    Format,
    GoalPath,
    Json,
    LeaveIdle,
    LeaveOut,
    MaxAccuracyDrop,
    MaxEnergyMj,
    MaxLatencyMs,
    MethodOption,
    MinRetention,
    ObjectiveOption,
    Pins,
    PlanFile,
    ProfileName,
    Seed,
    Start,
    Survive,
    TimeLimit,
    Together,
)
from planner.errors import InputError
from planner.file_formats import FILE_FORMATS


@command
def solve(
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    goal: GoalPath = None,
    objective: ObjectiveOption = None,
    max_accuracy_drop: MaxAccuracyDrop = None,
    accuracy_confidence: AccuracyConfidence = None,
    min_retention: MinRetention = None,
    max_latency_ms: MaxLatencyMs = None,
    max_energy_mj: MaxEnergyMj = None,
    survive: Survive = None,
    pin: Pins = None,
    forbid: Forbids = None,
    together: Together = None,
    apart: Apart = None,
    leave_out: LeaveOut = None,
    leave_idle: LeaveIdle = False,
    start: Start = None,
    method: MethodOption = None,
    time_limit: TimeLimit = 30,
    deterministic: Deterministic = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan here.")] = None,
    json: Json = False,
) -> None:
    """Plan a fleet: who runs which classes on which pruned sub-model.

    Ctrl-C takes the best plan so far.

    Example: planner solve --devices devices.json --out plan.json
    """
    # Imports and files take their part of the time limit.
    began_s = time.monotonic()
    from planner.cli.goal_flags import class_sets, placements, read_goal
    from planner.library import load_fleet, load_profile, read_plan
    from planner.schema import write_document
    from planner.solver import SolveOptions
    from planner.solver import solve as solve_plan

    check_out(out)
    full_goal = read_goal(
        goal,
        {
            "objective": objective and objective.value,
            "max_accuracy_drop": max_accuracy_drop,
            "accuracy_confidence": accuracy_confidence,
            "min_retention": min_retention,
            "max_latency_ms": max_latency_ms,
            "max_energy_mj": max_energy_mj,
            "survive": survive,
            "pin": placements(pin or (), "--pin"),
            "forbid": placements(forbid or (), "--forbid"),
            "together": class_sets(together or (), "--together"),
            "apart": class_sets(apart or (), "--apart"),
            "leave_out": tuple(leave_out or ()),
            "leave_idle": leave_idle,
            "method": method and method.value,
        },
    )
    fleet, model_profile = load_fleet(devices), load_profile(profile)
    earlier = None if start is None else read_plan(start)
    with naming(devices, goal), terminal.solving(full_goal.objective) as progress:
        plan = solve_plan(
            model_profile,
            fleet,
            full_goal,
            SolveOptions(
                seed=seed,
                time_limit_s=time_limit,
                began_s=began_s,
                deterministic=deterministic,
                start=earlier,
                progress=progress,
            ),
        )
    if out is not None:
        write_document(out, plan)
    print_plan(plan, model_profile, fleet, json)
    if earlier is not None and not json:
        from planner.report.text import moves_text

        terminal.console().print(moves_text(earlier, plan, model_profile))


@command
def check(plan: PlanFile, devices: Devices = Path("devices.json"), profile: ProfileName = "digits-vit") -> None:
    """Say whether a plan is valid and its numbers true; exit 1 if not.

    The bound is the solver's: no recomputation can confirm it.

    Example: planner check plan.json --devices devices.json
    """
    from planner.library import load_fleet, load_profile, read_plan
    from planner.rules.check import check as check_plan

    problems = check_plan(read_plan(plan), load_profile(profile), load_fleet(devices))
    for problem in problems:
        typer.echo(f"{plan}: {problem}.")
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{plan}: valid.")


@command
def show(
    plan: PlanFile,
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    json: Json = False,
) -> None:
    """Show a plan as a table.

    Example: planner show plan.json --devices devices.json
    """
    from planner.library import load_profile, read_plan

    loaded, model_profile = read_plan(plan), load_profile(profile)
    print_plan(loaded, model_profile, checked_fleet(plan, loaded, model_profile, devices), json)


@command
def schema(format: Format) -> None:
    """Print the JSON Schema of a file format, for editors.

    With "$schema": "devices.schema.json" in your file, an editor completes its keys. docs/formats.md is for people.

    Example: planner schema devices > devices.schema.json
    """
    import json

    from planner.library import load_kinds
    from planner.schema import did_you_mean, json_schema

    if format not in FILE_FORMATS:
        raise InputError(
            f"FORMAT must be one of {', '.join(FILE_FORMATS)}, "
            f"got {format!r}{did_you_mean(format, FILE_FORMATS) or '.'}"
        )
    typer.echo(json.dumps(json_schema(format, load_kinds()), indent=1))
