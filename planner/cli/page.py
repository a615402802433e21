"""Command that writes a plan as a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli import terminal
from planner.cli.app import check_out, checked_fleet, command, rows_as_shown
from planner.cli.options import Devices, PlanFile, ProfileName, Solvers, TimeLimit
from planner.errors import InputError
from planner.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

    from planner.schema import Fleet, Plan, Profile, Rehearsal
    from planner.whatif import Today
    from planner.workers import Executor

# The loss of each device is a solve of its own: of larger fleets, only the slowest devices are tried.
_MAX_LOST = 24


@command
def report(
    plan: PlanFile,
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    jobs: Solvers = None,
    time_limit: TimeLimit = 30,
    rehearsal: Annotated[
        Path | None, typer.Option(help="A rehearsal.json of the plan, to show predicted and measured side by side.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write a plan as a page of plots, to look at and to send.

    Also on the page: tables, certificate, what the loss of each device would mean, what accuracy costs, and how to make
    the plan again. It loads nothing from anywhere. The time limit is that of each loss and each point.

    Example: planner report plan.json --devices devices.json --out report.html
             planner report plan.json --rehearsal rehearsal.json
    """
    # Imported before any work, since it fails without plotly.
    from planner.library import load_profile, read_plan
    from planner.report.page import page
    from planner.schema.base import write_text
    from planner.whatif import today_of
    from planner.workers import make_executor

    check_out(out)
    loaded, model_profile = read_plan(plan), load_profile(profile)
    fleet = checked_fleet(plan, loaded, model_profile, devices)
    rehearsed = None if rehearsal is None else _rehearsal_of(rehearsal, loaded)
    with make_executor(jobs) as workers:
        with terminal.status("reading today's plan"):
            seed = loaded.solver.seed
            today = today_of(model_profile, fleet, start=loaded, seed=seed, time_limit_s=time_limit)
        without = _without(today, loaded, model_profile, fleet, workers)
        fronts = _fronts(today, model_profile, workers)
    with terminal.status("drawing"):
        text = page(loaded, model_profile, fleet, without=without, fronts=fronts, rehearsal=rehearsed)
    write_text(out, text)
    typer.echo(f"{out}: page of {plan}, {format_bytes(len(text.encode()))}; open it in a browser.")


def _rehearsal_of(path: Path, plan: "Plan") -> "Rehearsal":
    from planner.schema import Rehearsal, read_document, sha256_of

    read = read_document(path, Rehearsal)
    if read.plan_sha256 != sha256_of(plan):
        raise InputError(f"{path}: must be a rehearsal of this plan, got one of another.")
    return read


def _without(today: "Today", plan: "Plan", profile: "Profile", fleet: "Fleet", workers: "Executor") -> "pd.DataFrame":
    """Return today's row and one for the loss of each device that the plan uses or sends messages over."""
    from planner.report.graph import fleet_graph
    from planner.whatif import ChangeRequest, axes_of, expand, frame_of, solve_all

    nodes = fleet_graph(plan, profile, fleet).nodes
    needed = {name for _, node in nodes(data=True) for path in ("path", "return_path") for name in node[path]}
    slowest = sorted(needed, key=lambda name: (-nodes[name]["latency_us"], name))[:_MAX_LOST]
    lost = expand(axes_of(ChangeRequest(drop=slowest), fleet), today.case)
    with terminal.counting("lose each device") as on_row:
        return frame_of(rows_as_shown(solve_all(today, lost, workers, on_row)))


def _fronts(today: "Today", profile: "Profile", workers: "Executor") -> "list[pd.DataFrame]":
    """Return latency against accuracy, where the profile predicts it."""
    from planner.whatif import pareto

    if profile.accuracy_model is None:
        return []
    with terminal.counting("latency against accuracy") as on_row:
        return [pareto(today, "accuracy", workers=workers, on_row=on_row)]
