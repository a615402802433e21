"""Errors that users see.

PlannerError
    InputError        the input cannot be used; exit code 2
    InfeasibleError   no plan exists, with the reason; exit code 1
    TimeLimitError    no plan was found in time, which proves nothing; exit code 1
"""

import math

from planner.units import shorten, visible

# Of a whole message, and of a value in it.
_MAX_MESSAGE, _MAX_QUOTED = 480, 60


class PlannerError(Exception):
    """A problem that a user can read and act on: one message, never a traceback.

    Whatever a file or another program put into the message, it is printable and of bounded length.

    Args:
        message: What must hold, what was got, where, and what to do. Arguments that are mentioned stand as
            `setting` writes them, so that the command line can show them as flags.
        field: The argument that is at fault, where it is a single one; it stands before the message.
    """

    exit_code = 1

    def __init__(self, message: str, field: str | None = None) -> None:
        whole = message if field is None else f"{setting(field)}: {message}"
        super().__init__(shorten(whole, _MAX_MESSAGE))
        self.field = field


class InputError(PlannerError):
    """A file, argument or value that cannot be used as given."""

    exit_code = 2


class InfeasibleError(PlannerError):
    """No plan exists: the message names the reason and what would help."""


class TimeLimitError(PlannerError):
    """Time ran out before any plan was found; one may exist."""


def refuse_unless_finite(**numbers: float | None) -> None:
    """Refuse arguments that are given and are no finite number, at least 0.

    Raises:
        InputError: If one is not.
    """
    for name, value in numbers.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{setting(name)} must be a finite number, at least 0, got {value}.")


def setting(name: str, value: object = None) -> str:
    """Return how a message mentions an argument: `time_limit_s`, or with a value `max_accuracy_drop=0.1`."""
    return f"`{name}`" if value is None else f"`{name}={value}`"


def quoted(value: object, *, ascii_only: bool = False) -> str:
    """Return a value as a message shows it: as Python writes it, with the middle of a long one left out.

    Args:
        value: Value that was got.
        ascii_only: Escape other letters, where two values look the same.
    """
    if isinstance(value, str) and not ascii_only:
        return repr(shorten(value, _MAX_QUOTED)) if value.isprintable() else f"'{shorten(visible(value), _MAX_QUOTED)}'"
    return shorten(ascii(value) if ascii_only else repr(value), _MAX_QUOTED)
