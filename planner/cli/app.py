"""The application, what makes a function a command of it, and what commands share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import typer

from planner.cli import terminal
from planner.errors import InputError, PlannerError

if TYPE_CHECKING:
    from planner.schema import Fleet, Plan, Profile

P = ParamSpec("P")

_RESUMABLE = {"execute", "profile"}

_HELP = """Plan, prune and fuse Vision Transformers over fleets of edge devices.

Example: planner solve --devices devices.json --out plan.json
         planner execute plan.json --out bundle/
         planner evaluate bundle/ --devices devices.json

docs/getting-started.md goes through it; each command's --help has an example.
"""


def as_printed(text: str) -> str:
    """Return a help text whose examples keep their lines: they are there to be copied."""
    # The mark of click and typer for a paragraph that is not to be wrapped.
    return inspect.cleandoc(text).replace("\n\nExample: ", "\n\n\b\nExample: ")


app = typer.Typer(
    name="planner",
    help=as_printed(_HELP),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command_of(group: typer.Typer) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a function a command of a group, whose errors are one sentence on stderr and an exit code."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
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

        name = function.__name__.replace("_", "-").strip("-")
        group.command(name=name, help=as_printed(function.__doc__ or ""))(wrapped)
        return wrapped

    return register


command = command_of(app)


def refuse_folder(out: Path | None) -> None:
    """Notice before the work that its result could not be written."""
    if out is not None and (not out.name or out.is_dir()):
        raise InputError(f"--out {out}: must be a file, got a folder.")


def print_plan(plan: "Plan", profile: "Profile", fleet: "Fleet", json: bool) -> None:
    if json:
        from planner.schema import to_json

        typer.echo(to_json(plan), nl=False)
        return
    from planner.report.text import plan_text

    terminal.console().print(plan_text(plan, profile, fleet))


def checked_fleet(plan: "Plan", profile: "Profile", devices: Path) -> "Fleet":
    """Return the fleet, if the plan is a valid plan for it."""
    from planner.library import load_fleet
    from planner.rules.check import check as check_plan

    fleet = load_fleet(devices)
    problems = check_plan(plan, profile, fleet)
    if problems:
        raise InputError(f"{devices}: {problems[0]}.")
    return fleet
