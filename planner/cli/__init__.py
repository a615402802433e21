"""Command line. Each command imports what it needs, so that help and planning stay quick."""

import sys
import warnings

import typer

# Each module adds its commands to the application, in the order of the help.
# isort: off
from planner.cli import plan, scenarios, compare, page, run, export, deploy, serve, rehearse, model, profile, probe

# isort: on
from planner.cli.app import app
from planner.cli.streams import give_up_output, prepare_streams
from planner.cli.usage import NoArgsIsHelpError, UsageError, usage_error
from planner.errors import InputError

__all__ = [
    "app",
    "compare",
    "deploy",
    "export",
    "main",
    "model",
    "page",
    "plan",
    "probe",
    "profile",
    "rehearse",
    "run",
    "scenarios",
    "serve",
]


def main() -> None:
    """Run the command line."""
    prepare_streams()
    # What other libraries warn of is meant for those who call them.
    warnings.simplefilter("ignore")
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except NoArgsIsHelpError as error:
        error.show()  # type: ignore[attr-defined]
        code = InputError.exit_code
    except UsageError as error:
        typer.echo(usage_error(error), err=True)
        code = InputError.exit_code
    except OSError as error:
        give_up_output()
        typer.echo(f"{error.filename or 'Standard output'}: cannot be written ({error.strerror}).", err=True)
        code = InputError.exit_code
    except MemoryError:
        typer.echo("The memory of this machine does not hold what this needs.", err=True)
        code = 1
    sys.exit(code)
