"""What the command line says of itself: every command has an example that parses, readable at 80 columns."""

import pytest
from click.testing import CliRunner

from tests.helpers.commands import ROOT, commands, parse

COMMANDS = dict(commands())
WIDTH = 80


def help_of(name: str) -> str:
    """Return what a command's --help prints on a terminal of 80 columns."""
    result = CliRunner(env={"COLUMNS": str(WIDTH)}).invoke(ROOT, [*name.split()[1:], "--help"], terminal_width=WIDTH)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name: str) -> None:
    """Each help has an example, whose lines are command lines that the program takes."""
    _, example, rest = help_of(name).partition("\n  Example: ")
    assert example
    lines = [line.strip() for line in rest.partition("\n\n")[0].splitlines()]
    assert all(line.startswith("planner ") for line in lines)
    assert any(line.startswith(f"{name} ") for line in lines)
    for line in lines:
        parse(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits(name: str) -> None:
    """No line of a help is wider than 80 columns, and no summary of a command is cut off."""
    lines = help_of(name).splitlines()
    assert max(map(len, lines)) <= WIDTH
    summaries = "\n".join(lines).partition("\nCommands:\n")[2]
    assert "..." not in summaries


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    """Each option and argument says what it means."""
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_a_wrong_example_would_be_noticed() -> None:
    """A flag that does not exist, and a command that does not, are errors."""
    with pytest.raises(Exception, match="No such option"):
        parse("planner solve --devicez devices.json")
    with pytest.raises(AssertionError, match="no such command"):
        parse("planner solvve --devices devices.json")
