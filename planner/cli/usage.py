"""Command lines that cannot be parsed, in one sentence like every other error; typer's own words name no value."""

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from planner.errors import InputError, quoted

# The base of all of typer's errors of usage; releases differ in where it lies.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
# What ends a group that was named without a command: its help is shown.
NoArgsIsHelpError: type[Exception] = getattr(sys.modules[UsageError.__module__], "NoArgsIsHelpError", UsageError)

_WORDS = (
    (r"^Value error, ", ""),
    (r"^Input should be a valid integer.*", "must be a whole number"),
    (r"^Input should be a valid number.*", "must be a number"),
    (r"^Input should be greater than or equal to ", "must be >= "),
    (r"^Input should be less than or equal to ", "must be <= "),
    (r"^Input should be greater than ", "must be > "),
    (r"^Input should be less than ", "must be < "),
    (r"^Input should be ", "must be "),
    (r"^'.*' is not one of ", "must be one of "),
    (r"^'?(.*?)'? is not in the range x>=(.*)\.$", r"must be >= \2"),
    (r"'(\w[\w-]*)'", r"\1"),
)


def usage_error(error: Any) -> InputError:
    """Return an error of usage in our words, with the value that was got and where the options are explained."""
    where = "planner" if error.ctx is None else error.ctx.command_path
    problem = _problem(error).rstrip(".")
    return InputError(f"{problem}; see {where} --help.")


def _problem(error: Any) -> str:
    parameter = getattr(error, "param", None)
    if parameter is None or type(error) is not typer.BadParameter:
        message: str = error.format_message().rstrip(".")
        return message[:1].upper() + message[1:]
    message = error.message
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    flags = [flag for flag in parameter.opts if flag.startswith("-")]
    name = max(flags, key=len, default=parameter.name.upper())
    got = _value_of(flags, sys.argv[1:])
    return f"{name} {message.rstrip('.')}" + ("" if got is None else f", got {quoted(got)}")


def _value_of(flags: Sequence[str], words: Sequence[str]) -> str | None:
    """Return the last value that a command line gives to an option."""
    found = None
    for word, after in zip(words, [*words[1:], None], strict=True):
        flag, has_value, value = word.partition("=")
        if word in flags:
            found = after
        elif has_value and flag in flags:
            found = value
    return found
