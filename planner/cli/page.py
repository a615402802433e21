"""The command that writes a plan's page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli import terminal
from planner.cli.app import checked_fleet, command, refuse_folder
from planner.cli.options import Devices, PlanFile, ProfileName, Solvers, TimeLimit

if TYPE_CHECKING:
    import pandas as pd

    from planner.schema import Fleet, Plan, Profile
    from planner.whatif import Today
    from planner.workers import Executor

# Each is solved for itself: of larger fleets, the slowest devices are lost.
_MOST_LOST = 24


@command
def report(
    plan: PlanFile,
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    jobs: Solvers = None,
    time_limit: TimeLimit = 30,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write a plan as a page of pictures, to look at and to send.

    Also on the page: tables, certificate, what the loss of each device would mean, what accuracy costs, and how to make
    the plan again. It loads nothing from anywhere. The time limit is that of each loss and each point.

    Example: planner report plan.json --devices devices.json --out report.html
    """
    # First: without plotly nothing else needs to be done.
    from planner.library import load_plan, load_profile
    from planner.report.page import page
    from planner.schema.base import write_text
    from planner.whatif import today_of
    from planner.workers import make_executor

    refuse_folder(out)
    loaded, model_profile = load_plan(plan), load_profile(profile)
    fleet = checked_fleet(loaded, model_profile, devices)
    with make_executor(jobs) as workers:
        with terminal.status("reading today's plan"):
            seed = loaded.solver.seed
            today = today_of(model_profile, fleet, start=loaded, seed=seed, time_limit_s=time_limit)
        without = _without(today, loaded, model_profile, fleet, workers)
        fronts = _fronts(today, model_profile, workers)
    with terminal.status("drawing"):
        text = page(loaded, model_profile, fleet, without=without, fronts=fronts)
    write_text(out, text)
    typer.echo(f"{out}: page of {plan}, {len(text.encode()) / 1e6:.1f} MB; open it in a browser.")


def _without(today: "Today", plan: "Plan", profile: "Profile", fleet: "Fleet", workers: "Executor") -> "pd.DataFrame":
    """Return today's row and one for the loss of each device that the plan uses or sends messages over."""
    from planner.report.graph import graph_of
    from planner.whatif import ChangeRequest, all_rows, axes_of, expand, frame_of

    nodes = graph_of(plan, profile, fleet).nodes
    needed = {name for _, node in nodes(data=True) for path in ("path", "return_path") for name in node[path]}
    slowest = sorted(needed, key=lambda name: (-nodes[name]["latency_us"], name))[:_MOST_LOST]
    lost = expand(axes_of(ChangeRequest(drop=slowest), fleet), today.case)
    with terminal.counting("lose each device") as on_row:
        return frame_of(all_rows(today, lost, workers, on_row))


def _fronts(today: "Today", profile: "Profile", workers: "Executor") -> "list[pd.DataFrame]":
    """Return latency against accuracy, where the profile says what an accuracy drop allows."""
    from planner.whatif import pareto

    if not profile.recovery:
        return []
    with terminal.counting("latency against accuracy") as on_row:
        return [pareto(today, "accuracy", workers=workers, on_row=on_row)]
