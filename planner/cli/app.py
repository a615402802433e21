"""Application of the command line, registration of its commands, and helpers that commands share."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import typer
import typer.main

from planner.cli import terminal
from planner.cli.flags import flags_of, with_flags
from planner.cli.streams import output_is_lost
from planner.errors import InputError, PlannerError

if TYPE_CHECKING:
    from planner.schema import Fleet, Plan, Profile
    from planner.whatif import ScenarioRow

P = ParamSpec("P")

_RESUMABLE = {"execute", "profile"}
# Those that leave nothing but what they print, unless they write a file as well.
_PLANNING = {"check", "diff", "next_", "pareto", "show", "solve", "what_if"}
_PRINTING = _PLANNING | {"evaluate", "profile", "rehearse", "schema"}

_HELP = """Plan, prune and fuse Vision Transformers over fleets of edge devices.

Example: planner solve --devices devices.json --out plan.json
         planner execute plan.json --out bundle/
         planner evaluate bundle/ --devices devices.json

docs/getting-started.md goes through it; each command's --help has an example.
"""


def as_printed(text: str) -> str:
    """Return a help text whose examples keep their line breaks, so that they can be copied."""
    # Click and typer do not wrap a paragraph that begins with this mark.
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
    """Return a decorator that makes a function a command, whose errors are one sentence on stderr and an exit code."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                if output_is_lost() and function.__name__ in _PRINTING and kwargs.get("out") is None:
                    raise InputError("Standard output must be open, as the result is printed there; it is closed.")
                function(*args, **kwargs)
            except PlannerError as error:
                typer.echo(as_shown(str(error)), err=True)
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                resumable = " What was finished is kept: the same command goes on from there."
                typer.echo("Stopped." + resumable * (function.__name__ in _RESUMABLE), err=True)
                raise typer.Exit(130) from None

        name = function.__name__.replace("_", "-").strip("-")
        group.command(name=name, help=as_printed(function.__doc__ or ""))(wrapped)
        return wrapped

    return register


command = command_of(app)


@functools.cache
def _all_flags() -> dict[str, str]:
    # Of all commands: a reason in `planner what-if` may name a key of the goal, which is a flag of `planner solve`.
    return flags_of(typer.main.get_command(app))


def as_shown(message: str) -> str:
    """Return a message of the library as the command line shows it, with flags in place of settings."""
    return with_flags(message, _all_flags())


def rows_as_shown(rows: "Sequence[ScenarioRow]") -> "list[ScenarioRow]":
    """Return rows of what-if as the command line shows and writes them, with flags in their reasons."""
    return [row if row.reason is None else replace(row, reason=as_shown(row.reason)) for row in rows]


def check_out(out: Path | None) -> None:
    """Check that a file can be written where one is asked for, before any work is done."""
    from planner.schema.base import check_can_write

    if out is not None:
        try:
            check_can_write(out)
        except InputError as error:
            raise InputError(f"--out {error}") from None


@contextmanager
def naming(devices: Path, goal: Path | None = None) -> Iterator[None]:
    """Name the file in errors about its content that are noticed late: the goal's for a setting, else the fleet's."""
    try:
        yield
    except InputError as error:
        named = goal if str(error).startswith("`") else devices
        raise error if named is None else InputError(f"{named}: {error}") from None


def print_plan(plan: "Plan", profile: "Profile", fleet: "Fleet", json: bool) -> None:
    """Print a plan as a table, or as JSON."""
    if json:
        from planner.schema import to_json

        typer.echo(to_json(plan), nl=False)
        return
    from planner.report.text import plan_text

    terminal.console().print(plan_text(plan, profile, fleet))


def checked_fleet(source: Path, plan: "Plan", profile: "Profile", devices: Path) -> "Fleet":
    """Return the fleet of a file, which the plan of another file or bundle must be valid for."""
    from planner.library import load_fleet
    from planner.rules.check import check as check_plan

    fleet = load_fleet(devices)
    problems = check_plan(plan, profile, fleet)
    if problems:
        raise InputError(f"{source}, on the fleet of {devices}: {problems[0]}.")
    return fleet
