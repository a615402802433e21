"""The command that writes a plan's page."""

from pathlib import Path
from typing import Annotated

import typer

from planner import terminal
from planner.cli.app import checked_fleet, command, refuse_folder
from planner.options import Devices, PlanFile, ProfileName


@command
def report(
    plan: PlanFile,
    devices: Devices = Path("devices.json"),
    profile: ProfileName = "digits-vit",
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write a plan as a page of pictures, to look at and to send.

    Also on the page: tables, certificate, and how to make the plan again. It loads nothing from anywhere.

    Example: planner report plan.json --devices devices.json --out report.html
    """
    # First: without plotly nothing else needs to be done.
    from planner.report.page import page
    from planner.schema.base import write_text
    from planner.shipped import load_plan, load_profile

    refuse_folder(out)
    loaded, model_profile = load_plan(plan), load_profile(profile)
    fleet = checked_fleet(loaded, model_profile, devices)
    with terminal.status("drawing"):
        text = page(loaded, model_profile, fleet, without=None, fronts=())
    write_text(out, text)
    typer.echo(f"{out}: page of {plan}, {len(text.encode()) / 1e6:.1f} MB; open it in a browser.")
