"""Command line. Each command imports what it needs, so that help and planning stay quick."""

import sys
import warnings

import typer

# Each module adds its commands to the application, in the order of the help.
# isort: off
from planner.cli import plan, scenarios, compare, page, run, export, deploy, serve, rehearse, model, profile, probe

# isort: on
from planner.cli.app import app
from planner.cli.streams import STANDARD_OUTPUT, give_up_output, prepare_streams
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
        code = _end_by(error)
    except MemoryError:
        typer.echo("The memory of this machine does not hold what this needs.", err=True)
        code = 1
    sys.exit(code)


def _end_by(error: OSError) -> int:
    """Say what the system refused, and return the exit code; an error of another library's own making is raised."""
    if error.errno is None:
        raise error
    if error.filename == STANDARD_OUTPUT:
        give_up_output()
        typer.echo(f"{STANDARD_OUTPUT}: cannot be written ({error.strerror}).", err=True)
        return InputError.exit_code
    if error.filename is not None:
        typer.echo(f"{error.filename}: cannot be used ({error.strerror}).", err=True)
        return InputError.exit_code
    typer.echo(f"This machine does not give what this needs ({error.strerror}).", err=True)
    return 1
