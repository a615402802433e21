"""Standard streams that are closed, as those of daemons may be, or take no more, as a full disk does."""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

STANDARD_OUTPUT = "Standard output"
_closed: set[int] = set()


class _NamedOutput(io.FileIO):
    """Standard output whose errors bear its name, so that they are told from all others."""

    def write(self, data: "Buffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise


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
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        stream = getattr(sys, name)
        # A terminal has an encoding of its own, and a user may ask for one; another program gets names whole.
        encoding = stream.encoding if stream.isatty() or "PYTHONIOENCODING" in os.environ else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")
    sys.stdout = _named(sys.stdout)


def _named(stream: TextIO) -> TextIO:
    """Return a stream whose errors bear the name of standard output, where it is a file of the system."""
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.FileIO):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_NamedOutput(raw.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def output_is_lost() -> bool:
    """Return whether what is printed goes nowhere, since standard output was closed."""
    return 1 in _closed


def give_up_output() -> None:
    """Let standard output go nowhere from now on, so that what could not be written is not tried again at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
