"""Commands that change a fleet and solve again: what if, at what price, what to buy, what moves."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli import terminal
from planner.cli.app import command, refuse_folder
from planner.cli.options import (
    AddEach,
    Adds,
    AgainstName,
    Cross,
    Csv,
    Devices,
    DropEach,
    Drops,
    GoalPath,
    Json,
    PlanFile,
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
    from planner.whatif import ResultCache
    from planner.whatif import Today as WhatIfToday


@dataclass(frozen=True)
class _Given:
    """What the files say that all these commands read."""

    profile: "Profile"
    fleet: "Fleet"
    goal: "Goal"
    plan: "Plan | None"

    @classmethod
    def of(cls, devices: Path, profile: str, goal: Path | None, start: Path | None = None) -> "_Given":
        from planner.cli.goal_flags import read_goal
        from planner.library import load_fleet, load_plan, load_profile

        if goal is not None and start is not None:
            raise InputError("--goal and --start both say what plans must hold: a plan has its goal, give one of them.")
        plan = None if start is None else load_plan(start)
        asked = read_goal(goal, {}) if plan is None else plan.goal
        return cls(load_profile(profile), load_fleet(devices), asked, plan)

    def today(self, seed: int, time_limit_s: float, kept: "ResultCache | None" = None) -> "WhatIfToday":
        from planner.whatif import today_of

        with terminal.status("solving today's plan"):
            return today_of(
                self.profile,
                self.fleet,
                self.goal,
                start=self.plan,
                seed=seed,
                time_limit_s=time_limit_s,
                kept=kept,
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
    from planner.report.what_if_text import what_if_text
    from planner.schema import ScenarioFile, read_document
    from planner.schema.base import write_text
    from planner.whatif import (
        Case,
        ChangeRequest,
        ResultCache,
        axes_of,
        expand,
        frame_of,
        rows_to_csv,
        rows_to_json,
        solve_scenarios,
    )
    from planner.workers import make_executor, tls_of

    _refuse_both(json, csv)
    refuse_folder(out)
    if out is not None and out.suffix not in (".csv", ".json"):
        raise InputError(f"--out {out}: must be a .csv or .json file, got {out.suffix or 'no ending'!r}.")
    file = None if scenarios is None else read_document(scenarios, ScenarioFile)
    given = _Given.of(devices, profile, goal, start)
    asked = ChangeRequest(
        drop or (), drop_each, add or (), add_each or (), set or (), scale or (), sweep or (), file, str(scenarios)
    )
    found = expand(axes_of(asked, given.fleet), Case.of(given.profile, given.fleet, given.goal), cross)
    if not found:
        raise InputError("Nothing to ask: give --drop, --drop-each, --add, --set, --scale, --sweep or --scenarios.")
    kept = ResultCache(None if out is None else out.with_name(f"{out.name}.part"))
    go_on = "the same command goes on from there" if out else "with --out, rows are kept"
    rows = {}
    with make_executor(jobs, scheduler, tls_of(tls_ca, tls_cert, tls_key), alike=("ortools",)) as workers:
        today = given.today(seed, time_limit, kept)
        stopped: BaseException | None = None
        try:
            with terminal.counting("scenarios") as on_row:
                on_row(0, len(found))
                for i, row in solve_scenarios(today, found, workers, kept, hint=go_on):
                    rows[i] = row
                    on_row(len(rows), len(found))
        except (KeyboardInterrupt, PlannerError) as error:
            # What is solved is shown all the same.
            stopped = error
    shown = [today.row, *(rows[i] for i in sorted(rows))]
    if out is not None and not stopped:
        write_text(out, rows_to_csv(shown) if out.suffix == ".csv" else rows_to_json(shown))
        kept.done()
    if json or csv:
        typer.echo(rows_to_json(shown) if json else rows_to_csv(shown), nl=False)
    else:
        terminal.console().print(what_if_text(frame_of(shown), given.fleet.name))
    if isinstance(stopped, PlannerError):
        raise stopped
    if stopped:
        missing = len(found) - len(rows)
        typer.echo(f"Stopped: {missing} of {len(found)} scenarios are missing; {go_on}.", err=True)
        raise typer.Exit(130)


@command
def pareto(
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    goal: GoalPath = None,
    against: Annotated[AgainstName, typer.Option(help="What a lower latency costs.")] = AgainstName.accuracy,
    points: Annotated[int, typer.Option(help="How many limits of memory or energy are tried.", min=2, max=1000)] = 8,
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
    given = _Given.of(devices, profile, goal)
    with make_executor(jobs) as workers:
        today = given.today(seed, time_limit)
        with terminal.counting("solving along the front") as on_row:
            frame = front_of(today, against.value, points, workers, on_row)
    _print_frame(frame, pareto_text(frame, given.fleet.name), json, csv, index=False)


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

    One more device of each kind, each device's memory doubled, each one's bandwidth doubled: all solved, none guessed.

    Example: planner next --devices devices.json --kinds raspberry-pi-5,esp32-s3
    """
    from planner.report.what_if_text import next_text
    from planner.whatif import next_best
    from planner.workers import make_executor

    _refuse_both(json, csv)
    given = _Given.of(devices, profile, goal, start)
    with make_executor(jobs) as workers:
        today = given.today(seed, time_limit)
        with terminal.counting("solving each change") as on_row:
            bought = None if kinds is None else [kind.strip() for kind in kinds.split(",")]
            frame = next_best(today, bought, workers, on_row)
    _print_frame(frame, next_text(frame, given.fleet.name), json, csv, index=True)


@command
def diff(
    before: PlanFile,
    after: Annotated[Path, typer.Argument(help="The plan.json that comes after it.", metavar="PLAN")],
    profile: ProfileName = "digits-vit",
    json: Json = False,
) -> None:
    """Say what moves from one plan to another, and what to send.

    Example: planner diff plan-a.json plan-b.json
    """
    from planner.library import load_plan, load_profile
    from planner.rules.check import check_sub_models
    from planner.rules.diff import diff_frame
    from planner.schema import sha256_of

    model_profile = load_profile(profile)
    earlier, later = load_plan(before), load_plan(after)
    ours = sha256_of(model_profile)
    for path, plan in ((before, earlier), (after, later)):
        if plan.profile_sha256 != ours:
            raise InputError(
                f"{path}: plans must be of profile {profile} ({ours[:12]}...), got one of "
                f"{plan.profile_sha256[:12]}...; name theirs by --profile."
            )
        if problems := check_sub_models(plan, model_profile):
            raise InputError(f"{path}: {problems[0]}.")
    frame = diff_frame(earlier, later, model_profile)
    if json:
        import json as json_

        moves = [{"device": name} | row for name, row in frame.to_dict("index").items()]
        latencies = [plan.latency_us for plan in (earlier, later)]
        data = {"latency_us": latencies, "bytes_to_send": int(frame["bytes_to_send"].sum()), "moves": moves}
        typer.echo(json_.dumps(data, indent=1, ensure_ascii=False))
        return
    from planner.report.text import headline, moves_text

    for path, plan in ((before, earlier), (after, later)):
        typer.echo(f"{path}: {headline(plan)}")
    terminal.console().print(moves_text(earlier, later, model_profile))


def _refuse_both(json: bool, csv: bool) -> None:
    """Notice before the work that two results are asked for."""
    if json and csv:
        raise InputError("--json and --csv both say what is printed: give one of them.")


def _print_frame(frame: "pd.DataFrame", text: "RenderableType", json: bool, csv: bool, index: bool) -> None:
    if json:
        data = frame.reset_index() if index else frame
        typer.echo(data.to_json(orient="records", indent=1, force_ascii=False))
    elif csv:
        typer.echo(frame.to_csv(index=index, lineterminator="\n"), nl=False)
    else:
        terminal.console().print(text)
