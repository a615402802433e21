"""Commands that solve changed fleets: what-if, pareto, next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli import terminal
from planner.cli.app import as_shown, check_out, command, naming, rows_as_shown
from planner.cli.options import (
    AddEach,
    Adds,
    AgainstName,
    Cross,
    Csv,
    Deterministic,
    Devices,
    DropEach,
    Drops,
    GoalPath,
    Json,
    ProfileName,
    Scales,
    ScenariosPath,
    Seed,
    Sets,
    Solvers,
    SolvingScheduler,
    StartPlan,
    Sweeps,
    TimeLimit,
    TlsCa,
    TlsCert,
    TlsKey,
)
from planner.errors import InputError, PlannerError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from planner.schema import Fleet, Goal, Plan, Profile
    from planner.whatif import ExpandedScenario, ResultCache, ScenarioRow
    from planner.whatif import Today as WhatIfToday
    from planner.workers import Executor


@dataclass(frozen=True)
class _Inputs:
    """Content of the files that all these commands read."""

    profile: "Profile"
    fleet: "Fleet"
    goal: "Goal"
    plan: "Plan | None"
    devices: Path
    goal_file: Path | None

    @classmethod
    def of(cls, devices: Path, profile: str, goal: Path | None, start: Path | None = None) -> "_Inputs":
        from planner.cli.goal_flags import read_goal
        from planner.library import load_fleet, load_profile, read_plan

        if goal is not None and start is not None:
            raise InputError("--goal and --start both say what plans must hold: a plan has its goal, give one of them.")
        plan = None if start is None else read_plan(start)
        full_goal = read_goal(goal, {}) if plan is None else plan.goal
        return cls(load_profile(profile), load_fleet(devices), full_goal, plan, devices, goal)

    def today(
        self, seed: int, time_limit_s: float, deterministic: bool = False, cache: "ResultCache | None" = None
    ) -> "WhatIfToday":
        from planner.whatif import today_of

        with naming(self.devices, self.goal_file), terminal.status("solving today's plan"):
            return today_of(
                self.profile,
                self.fleet,
                self.goal,
                start=self.plan,
                seed=seed,
                time_limit_s=time_limit_s,
                deterministic=deterministic,
                cache=cache,
            )


@command
def what_if(
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    goal: GoalPath = None,
    start: StartPlan = None,
    drop: Drops = None,
    drop_each: DropEach = False,
    add: Adds = None,
    add_each: AddEach = None,
    set: Sets = None,
    scale: Scales = None,
    sweep: Sweeps = None,
    scenarios: ScenariosPath = None,
    cross: Cross = False,
    jobs: Solvers = None,
    scheduler: SolvingScheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    time_limit: TimeLimit = 30,
    deterministic: Deterministic = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all columns here: a .csv or .json.")] = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Change the fleet or the goal and solve again: a row each.

    Each use of a flag, and each value of a range, is a scenario; with --cross, each combination of them. Rows are
    compared with today's plan. Ctrl-C shows the rows so far; with --out, the same command goes on from there.

    Example: planner what-if --devices devices.json --drop-each
             planner what-if --drop pump --add esp32-s3=2 --cross
             planner what-if --scale memory=0.5..2/7 --out rows.csv
    """
    from planner.schema import ScenarioFile, read_document
    from planner.whatif import Case, ChangeRequest, ResultCache, axes_of, expand
    from planner.workers import make_executor, tls_of

    _refuse_both(json, csv)
    check_out(out)
    if out is not None and out.suffix not in (".csv", ".json"):
        raise InputError(f"--out {out}: must be a .csv or .json file, got {out.suffix or 'no ending'!r}.")
    file = None if scenarios is None else read_document(scenarios, ScenarioFile)
    inputs = _Inputs.of(devices, profile, goal, start)
    request = ChangeRequest(
        drop or (), drop_each, add or (), add_each or (), set or (), scale or (), sweep or (), file, str(scenarios)
    )
    expanded = expand(axes_of(request, inputs.fleet), Case.of(inputs.profile, inputs.fleet, inputs.goal), cross)
    if not expanded:
        raise InputError("Nothing to ask: give --drop, --drop-each, --add, --set, --scale, --sweep or --scenarios.")
    cache = ResultCache(None if out is None else out.with_name(f"{out.name}.part"))
    resume_hint = "the same command goes on from there" if out else "with --out, rows are kept"
    with make_executor(jobs, scheduler, tls_of(tls_ca, tls_cert, tls_key), packages=("ortools",)) as workers:
        today = inputs.today(seed, time_limit, deterministic, cache)
        rows, stopped = _solve_until_stopped(today, expanded, workers, cache, resume_hint)
    all_rows = rows_as_shown([today.row, *(rows[i] for i in sorted(rows))])
    if out is not None and not stopped:
        _write_rows(out, all_rows)
        cache.delete_file()
    _print_rows(all_rows, inputs.fleet.name, json, csv)
    if isinstance(stopped, PlannerError):
        raise stopped
    if stopped:
        missing = len(expanded) - len(rows)
        typer.echo(f"Stopped: {missing} of {len(expanded)} scenarios are missing; {resume_hint}.", err=True)
        raise typer.Exit(130)


def _solve_until_stopped(
    today: "WhatIfToday",
    expanded: "Sequence[ExpandedScenario]",
    workers: "Executor",
    cache: "ResultCache",
    resume_hint: str,
) -> "tuple[dict[int, ScenarioRow], BaseException | None]":
    """Return the solved rows by position, and the Ctrl-C or error that stopped the rest: solved rows are shown then."""
    from planner.whatif import solve_scenarios

    rows: dict[int, ScenarioRow] = {}
    try:
        with terminal.counting("scenarios") as on_row:
            on_row(0, len(expanded))
            for i, row in solve_scenarios(today, expanded, workers, cache, resume_hint=resume_hint):
                rows[i] = row
                on_row(len(rows), len(expanded))
    except (KeyboardInterrupt, PlannerError) as error:
        return rows, error
    return rows, None


def _write_rows(out: Path, rows: "Sequence[ScenarioRow]") -> None:
    from planner.schema.base import write_text
    from planner.whatif import rows_to_csv, rows_to_json

    write_text(out, rows_to_csv(rows) if out.suffix == ".csv" else rows_to_json(rows))


def _print_rows(rows: "Sequence[ScenarioRow]", fleet: str, json: bool, csv: bool) -> None:
    from planner.report.what_if_text import what_if_text
    from planner.whatif import frame_of, rows_to_csv, rows_to_json

    if json or csv:
        typer.echo(rows_to_json(rows) if json else rows_to_csv(rows), nl=False)
    else:
        terminal.console().print(what_if_text(frame_of(rows), fleet))


@command
def pareto(
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    goal: GoalPath = None,
    against: Annotated[AgainstName, typer.Option(help="What a lower latency costs.")] = AgainstName.accuracy,
    points: Annotated[
        int, typer.Option(help="How many limits are tried; accuracy drops are 0.005 to 0.2.", min=2, max=1000)
    ] = 8,
    jobs: Solvers = None,
    time_limit: TimeLimit = 30,
    seed: Seed = 0,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show what latency costs in accuracy, memory or energy.

    Each row is a plan that no other beats in both, with the bound that proves it.

    Example: planner pareto --devices devices.json --against energy
    """
    from planner.report.what_if_text import pareto_text
    from planner.whatif import pareto as front_of
    from planner.workers import make_executor

    _refuse_both(json, csv)
    inputs = _Inputs.of(devices, profile, goal)
    with make_executor(jobs) as workers:
        today = inputs.today(seed, time_limit)
        with terminal.counting("solving along the front") as on_row:
            frame = front_of(today, against.value, points, workers, on_row)
    _print_frame(frame, pareto_text(frame, inputs.fleet.name), json, csv, index=False)


@command
def next_(
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    goal: GoalPath = None,
    start: StartPlan = None,
    kinds: Annotated[
        str | None, typer.Option(help="KIND,KIND,...: what could be bought.  [default: every known kind]")
    ] = None,
    jobs: Solvers = None,
    time_limit: TimeLimit = 30,
    seed: Seed = 0,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Say what to buy or upgrade next, and what each would gain.

    One more device of each kind, each device's memory, storage or bandwidth doubled: all solved, none guessed.

    Example: planner next --devices devices.json --kinds raspberry-pi-5,esp32-s3
    """
    from planner.report.what_if_text import next_text
    from planner.whatif import next_best
    from planner.workers import make_executor

    _refuse_both(json, csv)
    inputs = _Inputs.of(devices, profile, goal, start)
    with make_executor(jobs) as workers:
        today = inputs.today(seed, time_limit)
        with terminal.counting("solving each change") as on_row:
            wanted_kinds = None if kinds is None else [kind.strip() for kind in kinds.split(",")]
            frame = next_best(today, wanted_kinds, workers, on_row)
    frame["reason"] = [reason and as_shown(reason) for reason in frame["reason"]]
    _print_frame(frame, next_text(frame, inputs.fleet.name), json, csv, index=True)


def _refuse_both(json: bool, csv: bool) -> None:
    """Refuse two forms of output at once, before any work is done."""
    if json and csv:
        raise InputError("--json and --csv both say what is printed: give one of them.")


def _print_frame(frame: "pd.DataFrame", text: "RenderableType", json: bool, csv: bool, index: bool) -> None:
    if json:
        data = frame.reset_index() if index else frame
        typer.echo(data.to_json(orient="records", indent=1, force_ascii=False))
    elif csv:
        from planner.whatif import frame_to_csv

        typer.echo(frame_to_csv(frame, index), nl=False)
    else:
        terminal.console().print(text)
