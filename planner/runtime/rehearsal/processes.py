"""Worker processes of a rehearsal: started, killed, started again, and ended with this process."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from planner.errors import PlannerError
from planner.runtime.rehearsal import boot

_LISTENING = "listening on "
_MAX_START_S = 120.0
_MAX_SHOWN = 300


class WorkerProcess:
    """Process that runs a worker's file; it has a first line on stdout when it listens."""

    def __init__(
        self, worker: Path, arguments: Sequence[str], log: Path, network: Literal["shared", "own"] = "shared"
    ) -> None:
        """Start the process; it does not listen yet.

        Args:
            worker: Python archive or program to run.
            arguments: Its arguments.
            log: File that its stderr is appended to.
            network: Network namespace: this process's, or one of its own, which waits for `go_on`.
        """
        self.log = log
        self.peak_bytes: int | None = None
        self.listening_since: float | None = None
        self._received = b""
        command = [sys.executable, "-I", boot.__file__, str(os.getpid()), network, str(worker), *arguments]
        with log.open("ab") as errors:
            # In a session of its own, so that Ctrl-C reaches this process alone, which then ends its workers.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                cwd=worker.parent,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    def go_on(self) -> None:
        """Let a process in a namespace of its own run the worker."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def line(self, wait_s: float = _MAX_START_S) -> str | None:
        """Return the next line of stdout, or None if there is none in time.

        Raises:
            PlannerError: If the process ended before, with the end of its log.
        """
        assert self._process.stdout is not None
        until = time.monotonic() + wait_s
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            read = os.read(self._process.stdout.fileno(), 4096)
            if not read:
                raise PlannerError(f"a worker ended before it listened: {self._last_words()}")
            self._received += read
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace")

    def address(self, wait_s: float = _MAX_START_S) -> str | None:
        """Return HOST:PORT when the worker listens, or None if it does not in time.

        Raises:
            PlannerError: If it ended before, or says anything else.
        """
        line = self.line(wait_s)
        if line is None:
            return None
        if not line.startswith(_LISTENING):
            raise PlannerError(f"a worker must say {_LISTENING!r} first, got {line[:_MAX_SHOWN]!r}.")
        self.listening_since = time.monotonic()
        return line.removeprefix(_LISTENING).split()[0]

    def note_peak(self) -> None:
        """Remember the peak resident memory so far, where the system tells it."""
        self.peak_bytes = peak_of_process(self.pid) or self.peak_bytes

    def kill(self) -> None:
        """End the process at once, whatever it is doing, as a board does whose power is gone."""
        self.note_peak()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:_MAX_SHOWN] if lines else "it said nothing"


def peak_of_process(pid: int) -> int | None:
    """Return the peak resident memory (VmHWM) of a running process [bytes], where the system tells it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    # Not getrusage's maximum, which is inherited from the parent process.
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def interpreter_bytes(worker: Path) -> int | None:
    """Return the peak resident memory of a process that imports all that a worker does, but loads no model [bytes]."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import worker.__main__; print(open('/proc/self/status').read())"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(worker)], capture_output=True, text=True, check=False)
    return next((int(line.split()[1]) * 1024 for line in done.stdout.splitlines() if line.startswith("VmHWM:")), None)
