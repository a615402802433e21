"""Independent calls side by side: every one is answered, once, whoever makes it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from planner.errors import InputError, PlannerError
from planner.workers import Executor, InlineExecutor, ProcessExecutor, Submit, make_executor, results


def product(carried: int, factor: int) -> int:
    """The task: a function of a module."""
    if factor < 0:
        raise InputError(f"factor must be >= 0, got {factor}.")
    return carried * factor


CALLS = [(factor,) for factor in range(7)]


@pytest.mark.parametrize("workers", [InlineExecutor(), ProcessExecutor(2)])
def test_every_call_is_answered(workers: Executor) -> None:
    """Seven products, each with its position."""
    assert sorted(results(workers, product, 3, CALLS, "kept")) == [(i, 3 * i) for i in range(7)]
    assert list(results(workers, product, 3, [], "kept")) == []


@pytest.mark.parametrize("workers", [InlineExecutor(), ProcessExecutor(2)])
def test_an_error_comes_back_as_it_is(workers: Executor) -> None:
    """What a call raises is raised where its result is asked for."""
    with pytest.raises(InputError, match=r"factor must be >= 0, got -1\."):
        list(results(workers, product, 3, [(1,), (-1,)], "kept"))


def test_here_a_call_is_made_when_its_result_is_wanted() -> None:
    """One after the other: whoever stops asking has no more calls made."""
    made: list[int] = []
    answers = results(InlineExecutor(), lambda carried, i: made.append(i), None, CALLS, "kept")
    next(answers)
    answers.close()
    assert made == [0]


class Lossy:
    """Loses the first calls as a worker does that dies."""

    width = 2

    def __init__(self, losses: int) -> None:
        self.losses = losses

    @contextmanager
    def lent(self, carried: object, num_calls: int, kept: str) -> Iterator[Submit]:
        def submit(task: Callable[..., Any], *args: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            if self.losses:
                self.losses -= 1
                future.cancel()
                future.set_running_or_notify_cancel()
            else:
                future.set_result(task(carried, *args))
            return future

        yield submit


def test_a_lost_call_is_made_again_but_not_for_ever() -> None:
    """Three losses are borne, a fourth of the same call is not."""
    assert sorted(results(Lossy(3), product, 3, CALLS, "kept")) == [(i, 3 * i) for i in range(7)]
    with pytest.raises(PlannerError, match=r"call 0: whoever ran it died, 4 times, .* want of memory; run it again\."):
        list(results(Lossy(4), product, 3, CALLS[:1], "run it again"))


def test_who_works_is_decided_once() -> None:
    """One job is this process, more are processes; what does not go together is refused."""
    with make_executor(jobs=1) as workers:
        assert workers == InlineExecutor()
    with make_executor(jobs=3) as workers:
        assert workers == ProcessExecutor(3)
    with pytest.raises(InputError, match="give it without --jobs"), make_executor(jobs=2, scheduler="tcp://x:1"):
        pass
