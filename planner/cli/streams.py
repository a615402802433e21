"""Standard streams that are closed, as those of daemons may be, or take no more, as a full disk does."""

import os
import sys

_closed: set[int] = set()


def prepare_streams() -> None:
    """Make standard streams usable, whatever this process was started with.

    Closed ones become empty: else the next file that is opened would take their place. Characters that a terminal
    cannot show are escaped; where there is no terminal, text is UTF-8.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _closed.add(number)
            # The lowest free number is taken.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))
        stream = getattr(sys, name)
        # A terminal has an encoding of its own, and a user may ask for one; another program gets names whole.
        encoding = stream.encoding if stream.isatty() or "PYTHONIOENCODING" in os.environ else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")


def output_is_lost() -> bool:
    """Return whether what is printed goes nowhere, since standard output was closed."""
    return 1 in _closed


def give_up_output() -> None:
    """Let standard output go nowhere from now on, so that what could not be written is not tried again at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
