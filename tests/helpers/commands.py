"""The tree of commands, and the command lines written in help texts, the README and docs/."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer.main

from planner.cli import app

PROGRAM: Any = typer.main.get_command(app)


def commands(command: Any = PROGRAM, name: str = "planner") -> Iterator[tuple[str, Any]]:
    """Yield every command with its words, groups and the program itself included."""
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {word}")


def found(line: str) -> tuple[str, Any, list[str]]:
    """Return the command that a command line names, and its arguments."""
    words = shlex.split(line, comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in (">", "|", "&&")), len(words))]
    command, (program, *left) = PROGRAM, words
    while getattr(command, "commands", {}) and left and left[0] in command.commands:
        command, program, *left = command.commands[left[0]], f"{program} {left[0]}", *left[1:]
    assert left == ["--help"] or not getattr(command, "commands", {}), f"{line}: no such command"
    return program, command, left


def parse(line: str) -> None:
    """Parse a command line as the program would, without running it; a wrong one is an error."""
    program, command, left = found(line)
    if left != ["--help"]:
        command.make_context(program, left)


def unknown_flags(line: str) -> set[str]:
    """Return the flags of a command line, complete or not, that its command does not have."""
    _, command, left = found(line)
    known = {"--help"}.union(*(parameter.opts for parameter in command.params))
    return {word.partition("=")[0] for word in left if word.startswith("-")} - known


def lines_of(text: str) -> list[str]:
    """Return the `planner` command lines of a text's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("planner ")]


def mentions(text: str) -> list[str]:
    """Return the `code` spans of a text that mention a command with a flag."""
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [" ".join(line.split()) for line in re.findall(r"`(planner [a-z][^`]* -[^`]*)`", outside)]
