"""Help texts: every command has an example that parses, readable at 80 columns."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from planner.file_formats import FILE_FORMATS
from tests.helpers.commands import PROGRAM, commands, parse

COMMANDS = dict(commands())
WIDTH = 80


def help_of(name: str) -> str:
    """Return a command's --help on a terminal of 80 columns."""
    result = CliRunner(env={"COLUMNS": str(WIDTH)}).invoke(PROGRAM, [*name.split()[1:], "--help"], terminal_width=WIDTH)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name: str) -> None:
    """Each help text has an example whose command lines are valid."""
    _, example, rest = help_of(name).partition("\n  Example: ")
    assert example
    lines = [line.strip() for line in rest.partition("\n\n")[0].splitlines()]
    assert all(line.startswith("planner ") for line in lines)
    assert any(line.startswith(f"{name} ") for line in lines)
    for line in lines:
        parse(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits(name: str) -> None:
    """No line of a help text is wider than 80 columns, and no summary of a command is cut off."""
    lines = help_of(name).splitlines()
    assert max(map(len, lines)) <= WIDTH
    summaries = "\n".join(lines).partition("\nCommands:\n")[2]
    assert "..." not in summaries


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    """Each option and argument has a help text."""
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_a_wrong_example_would_be_noticed() -> None:
    """An unknown flag and an unknown command are errors."""
    with pytest.raises(Exception, match="No such option"):
        parse("planner solve --devicez devices.json")
    with pytest.raises(AssertionError, match="no such command"):
        parse("planner solvve --devices devices.json")


def test_the_help_of_schema_loads_no_schema() -> None:
    """The names of the formats are listed without the classes of the formats, whose import is slow."""
    code = (
        "import sys, planner.cli as c\n"
        "try: c.app(['schema', '--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert not {'planner.schema', 'torch', 'pandas', 'ortools'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in FILE_FORMATS)
