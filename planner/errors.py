"""What can go wrong, as the user sees it.

PlannerError
    InputError        what was given cannot be used; exit code 2
    InfeasibleError   no plan exists, and why; exit code 1
    TimeLimitError    no plan was found in time, which proves nothing; exit code 1
"""


class PlannerError(Exception):
    """A problem that a user can read and act on: one message, never a traceback."""

    exit_code = 1


class InputError(PlannerError):
    """A file, flag or value that cannot be used as given."""

    exit_code = 2


class InfeasibleError(PlannerError):
    """No plan exists: the message names the reason and what would help."""


class TimeLimitError(PlannerError):
    """Time ran out before any plan was found; one may exist."""
