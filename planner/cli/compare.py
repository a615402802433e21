"""Command that compares two plans."""

from pathlib import Path
from typing import Annotated

import typer

from planner.cli import terminal
from planner.cli.app import command
from planner.cli.options import Json, PlanFile, ProfileName
from planner.errors import InputError


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
    from planner.library import load_profile, read_plan
    from planner.rules.check import check_sub_models
    from planner.rules.diff import diff_frame
    from planner.schema import sha256_of

    model_profile = load_profile(profile)
    earlier, later = read_plan(before), read_plan(after)
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
