"""The command line. Each command imports what it needs, so that help and planning stay quick."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from planner import terminal
from planner.errors import InputError, PlannerError
from planner.options import (
    Apart,
    Deterministic,
    Devices,
    Forbids,
    FormatName,
    GoalPath,
    Json,
    LeaveIdle,
    LeaveOut,
    MaxAccuracyDrop,
    MaxEnergyMj,
    MaxLatencyMs,
    Method,
    MinRetention,
    Objective,
    Pins,
    PlanFile,
    ProfileName,
    Seed,
    Start,
    Survive,
    TimeLimit,
    Together,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from planner.schema import Fleet, Plan, Profile

P = ParamSpec("P")

_RESUMABLE = {"execute", "profile"}

app = typer.Typer(
    name="planner",
    help="Plan, prune and fuse Vision Transformers over fleets of edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function a command whose errors are one sentence on stderr and an exit code."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except PlannerError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            kept = " What was finished is kept: the same command goes on from there."
            typer.echo("Stopped." + kept * (function.__name__ in _RESUMABLE), err=True)
            raise typer.Exit(130) from None

    app.command(name=function.__name__.replace("_", "-").strip("-"))(wrapped)
    return wrapped


@command
def solve(
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    goal: GoalPath = None,
    objective: Objective = None,
    max_accuracy_drop: MaxAccuracyDrop = None,
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
    method: Method = None,
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
    from planner.goals import groups, placements, read_goal
    from planner.schema import write_document
    from planner.shipped import load_fleet, load_plan, load_profile
    from planner.solver import solve as solve_plan

    _refuse_folder(out)
    asked = read_goal(
        goal,
        {
            "objective": objective and objective.value,
            "max_accuracy_drop": max_accuracy_drop,
            "min_retention": min_retention,
            "max_latency_ms": max_latency_ms,
            "max_energy_mj": max_energy_mj,
            "survive": survive,
            "pin": placements(pin or (), "--pin"),
            "forbid": placements(forbid or (), "--forbid"),
            "together": groups(together or (), "--together"),
            "apart": groups(apart or (), "--apart"),
            "leave_out": tuple(leave_out or ()),
            "leave_idle": leave_idle,
            "method": method and method.value,
        },
    )
    fleet, model_profile = load_fleet(devices), load_profile(profile)
    earlier = None if start is None else load_plan(start)
    with terminal.solving(asked.objective) as progress:
        plan = solve_plan(
            model_profile,
            fleet,
            asked,
            seed=seed,
            time_limit_s=time_limit,
            deterministic=deterministic,
            start=earlier,
            progress=progress,
        )
    if out is not None:
        write_document(out, plan)
    _print_plan(plan, model_profile, fleet, json)
    if earlier is not None and not json:
        from planner.report.text import moves_text

        terminal.console().print(moves_text(earlier, plan, model_profile))


@command
def check(plan: PlanFile, devices: Devices = Path("devices.json"), profile: ProfileName = "digits-vit") -> None:
    """Say whether a plan is valid and its numbers true; exit 1 if not.

    The bound is the solver's: no recomputation can confirm it.

    Example: planner check plan.json --devices devices.json
    """
    from planner.check import check as check_plan
    from planner.shipped import load_fleet, load_plan, load_profile

    problems = check_plan(load_plan(plan), load_profile(profile), load_fleet(devices))
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
    from planner.shipped import load_plan, load_profile

    loaded, model_profile = load_plan(plan), load_profile(profile)
    _print_plan(loaded, model_profile, _checked_fleet(loaded, model_profile, devices), json)


@command
def execute(
    plan: PlanFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder.")],
    profile: ProfileName = "digits-vit",
    model: Annotated[str | None, typer.Option(help="The model's card, if it is not the shipped one.")] = None,
    epochs: Annotated[int, typer.Option(help="How long each sub-model is retrained.", min=1)] = 20,
    seed: Seed = 0,
) -> None:
    """Carry a plan out: cut, retrain and fuse the sub-models into a bundle.

    Stopped at any moment, the same command goes on from where it was.

    Example: planner execute plan.json --out bundle/
    """
    from planner.executor.execute import execute as execute_plan
    from planner.shipped import load_plan, load_profile

    terminal.one_thread()
    loaded, model_profile = load_plan(plan), load_profile(profile)
    with terminal.progress() as progress:
        task: TaskID | None = None

        def on_epoch(what: str, done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = progress.add_task("")
            progress.update(task, description=f"train: {what}", completed=done, total=total)

        execute_plan(loaded, model_profile, out, model=model, epochs=epochs, seed=seed, on_epoch=on_epoch)
    typer.echo(f"{out}: bundle of {len(loaded.assignments)} sub-models and their fusion.")


@command
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", metavar="BUNDLE")],
    devices: Annotated[
        Path | None, typer.Option("--devices", "-d", help="The fleet, to show the plan on it as well.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a bundle on the test part, and check that it is what was planned.

    Example: planner evaluate bundle/ --devices devices.json
    """
    from planner.executor.bundle import read_bundle
    from planner.executor.evaluate import evaluate as evaluate_bundle
    from planner.report.text import evaluation_text
    from planner.schema import to_json

    terminal.one_thread()
    with terminal.status("measuring"):
        read = read_bundle(bundle)
        fleet = None if devices is None else _checked_fleet(read.plan, read.profile, devices)
        evaluation = evaluate_bundle(read)
    if json:
        typer.echo(to_json(evaluation), nl=False)
        return
    if fleet is not None:
        _print_plan(read.plan, read.profile, fleet, json=False)
        typer.echo()
    terminal.console().print(evaluation_text(evaluation))


@command
def profile(
    model: Annotated[str, typer.Argument(help="A shipped model's name, or the path of a card.json.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the profile here.")] = None,
    seed: Seed = 0,
) -> None:
    """Measure a model: costs, importance for each class, what accuracy survives, this machine's speed.

    Takes a few minutes; stopped at any moment, the same command goes on from where it was.

    Example: planner profile digits-vit --out digits-vit.json
    """
    from planner.profiler.build import Stage, build_profile
    from planner.schema import to_json, write_document

    _refuse_folder(out)
    terminal.one_thread()
    work = out.with_name(f".{out.name}.probes") if out else Path(f".{Path(model).parent.name or model}.probes")
    with terminal.progress() as progress:
        tasks: dict[str, Any] = {}

        def on_stage(stage: Stage) -> None:
            if stage.name not in tasks:
                for task in tasks.values():
                    progress.update(task, completed=progress.tasks[task].total)
                tasks[stage.name] = progress.add_task(stage.name)
            progress.update(tasks[stage.name], completed=stage.done, total=stage.total)

        built = build_profile(model, work, seed, on_stage)
    if out is None:
        typer.echo(to_json(built), nl=False)
    else:
        write_document(out, built)
        typer.echo(f"{out}: profile of {built.model}.")
    work.unlink(missing_ok=True)


@command
def schema(format: Annotated[FormatName, typer.Argument(help="Which file's.")]) -> None:
    """Print the JSON Schema of a file format, for editors.

    Example: planner schema devices > devices.schema.json
    """
    import json

    from planner.schema import Fleet, GoalFile, Plan, Profile
    from planner.schema.base import Document

    formats: dict[FormatName, type[Document]] = {
        FormatName.devices: Fleet,
        FormatName.profile: Profile,
        FormatName.plan: Plan,
        FormatName.goal: GoalFile,
    }
    typer.echo(json.dumps(formats[format].model_json_schema(), indent=1))


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show is shown escaped, not as a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()


def _refuse_folder(out: Path | None) -> None:
    """Notice before the work that its result could not be written."""
    if out is not None and (not out.name or out.is_dir()):
        raise InputError(f"--out {out}: must be a file, got a folder.")


def _print_plan(plan: "Plan", profile: "Profile", fleet: "Fleet", json: bool) -> None:
    if json:
        from planner.schema import to_json

        typer.echo(to_json(plan), nl=False)
        return
    from planner.report.text import plan_text

    terminal.console().print(plan_text(plan, profile, fleet))


def _checked_fleet(plan: "Plan", profile: "Profile", devices: Path) -> "Fleet":
    """Return the fleet, if the plan is a valid plan for it."""
    from planner.check import check as check_plan
    from planner.shipped import load_fleet

    fleet = load_fleet(devices)
    problems = check_plan(plan, profile, fleet)
    if problems:
        raise InputError(f"{devices}: {problems[0]}.")
    return fleet
