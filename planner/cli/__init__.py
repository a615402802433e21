"""Command line. Each command imports what it needs, so that help and planning stay quick."""

import sys

# Each module adds its commands to the application, in the order of the help.
# isort: off
from planner.cli import plan, scenarios, compare, page, run, export, deploy, serve, rehearse, model, profile, probe

# isort: on
from planner.cli.app import app

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
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot show are escaped instead of ending in a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()
