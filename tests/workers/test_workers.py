"""Independent calls side by side: each gets its result once, from every executor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError, PlannerError
from planner.workers import Executor, InlineExecutor, ProcessExecutor, Submit, make_executor, map_unordered, processes
from tests.helpers.common import PATIENCE_S
from tests.helpers.marked_processes import alive, marked_environment, nobody_left


def product(shared: int, factor: int) -> int:
    """Return the product of the shared factor and a number."""
    if factor < 0:
        raise InputError(f"factor must be >= 0, got {factor}.")
    return shared * factor


CALLS = [(factor,) for factor in range(7)]


@pytest.mark.parametrize("workers", [InlineExecutor(), ProcessExecutor(2)])
def test_every_call_is_answered(workers: Executor) -> None:
    """Seven products, each with its position."""
    assert sorted(map_unordered(workers, product, 3, CALLS, "kept")) == [(i, 3 * i) for i in range(7)]
    assert list(map_unordered(workers, product, 3, [], "kept")) == []


@pytest.mark.parametrize("workers", [InlineExecutor(), ProcessExecutor(2)])
def test_an_error_comes_back_as_it_is(workers: Executor) -> None:
    """An exception of a call is raised where its result is read."""
    with pytest.raises(InputError, match=r"factor must be >= 0, got -1\."):
        list(map_unordered(workers, product, 3, [(1,), (-1,)], "kept"))


def test_inline_calls_are_made_lazily() -> None:
    """Calls of this process are made one after the other, only as far as results are read."""
    made: list[int] = []
    next(map_unordered(InlineExecutor(), lambda shared, i: made.append(i), None, CALLS, "kept"))
    assert made == [0]


class Lossy:
    """Executor that loses its first calls, as when workers die."""

    num_workers = 2

    def __init__(self, losses: int) -> None:
        self.losses = losses

    @contextmanager
    def session(self, shared: object, num_calls: int, resume_hint: str) -> Iterator[Submit]:
        def submit(task: Callable[..., Any], *args: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            if self.losses:
                self.losses -= 1
                future.cancel()
                future.set_running_or_notify_cancel()
            else:
                future.set_result(task(shared, *args))
            return future

        yield submit


def test_a_lost_call_is_made_again_but_not_for_ever() -> None:
    """Three losses of a call are tolerated, a fourth of the same call is an error."""
    assert sorted(map_unordered(Lossy(3), product, 3, CALLS, "kept")) == [(i, 3 * i) for i in range(7)]
    with pytest.raises(PlannerError, match=r"call 0: whoever ran it died, 4 times, .* want of memory; run it again\."):
        list(map_unordered(Lossy(4), product, 3, CALLS[:1], "run it again"))


def test_the_settings_choose_the_executor() -> None:
    """One job is this process, more are processes; settings that do not go together are refused."""
    with make_executor(jobs=1) as workers:
        assert workers == InlineExecutor()
    with make_executor(jobs=3) as workers:
        assert workers == ProcessExecutor(3)
    with pytest.raises(InputError, match="give it without `jobs`"), make_executor(jobs=2, scheduler="tcp://x:1"):
        pass


def die(shared: object, *args: object) -> None:
    """Die as if the system had killed this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def talk(shared: object, number: int) -> int:
    """Print, as a library may."""
    print("noise", flush=True)
    return number


class AwkwardError(Exception):
    """An error that cannot be made again from its pickle."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def fail(shared: object) -> None:
    """Raise an error that cannot travel."""
    raise AwkwardError(1, 2)


def test_a_process_that_dies_ends_the_calls() -> None:
    """A death in a call, while others wait for theirs, is an error that says what to do."""
    with pytest.raises(PlannerError, match=r"One of 2 processes was killed.*; run it again, with fewer `jobs`"):
        list(map_unordered(ProcessExecutor(2), die, None, CALLS, "run it again"))


def test_a_process_that_dies_as_it_starts_ends_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies before it has read what it was sent, more than a pipe holds, hangs nobody."""
    monkeypatch.setattr(processes, "_PROGRAM", "raise SystemExit(1)")
    with pytest.raises(PlannerError, match="One of 2 processes was killed"):
        list(map_unordered(ProcessExecutor(2), product, b"x" * 2**22, CALLS, "run it again"))


def test_what_a_call_prints_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    """Text on standard output goes to standard error, and answers come through."""
    assert sorted(map_unordered(ProcessExecutor(1), talk, None, [(1,), (2,)], "kept")) == [(0, 1), (1, 2)]
    assert capfd.readouterr().out == ""


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    """Its type and text arrive, and the process lives on."""
    with pytest.raises(RuntimeError, match="AwkwardError: 1 and 2"):
        list(map_unordered(ProcessExecutor(1), fail, None, [()], "kept"))


# Without a guard: a process that imported it would ask the same again, and so on.
_SCRIPT = """
from planner.workers import ProcessExecutor, map_unordered
print(sorted(map_unordered(ProcessExecutor(2), max, 3, [(1,), (5,)], "kept")))
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Processes do not import the script that asked."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (result.stdout, result.stderr) == ("[(0, 3), (1, 5)]\n", "")


_SLEEPS = """
import sys, time
from planner.workers import ProcessExecutor, map_unordered
sys.stdout.write("begun\\n"); sys.stdout.flush()
list(map_unordered(ProcessExecutor(2), print, b"x" * 2**20, [(i,) for i in range(100_000)], "kept"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("after_s", [0.0, 0.3])
def test_no_process_is_left_behind(number: signal.Signals, after_s: float, tmp_path: Path) -> None:
    """Whenever the process that asked is interrupted or killed, the others end with it."""
    mark = f"{tmp_path}-{number}-{after_s}"
    command = [sys.executable, "-c", _SLEEPS]
    quiet: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=marked_environment(mark), **quiet) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_s)
        assert alive(mark)
        process.send_signal(number)
        process.wait(timeout=PATIENCE_S)
    assert nobody_left(mark)
