"""Independent calls side by side: each gets its result once, from every executor."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from planner.errors import InputError, PlannerError
from planner.workers import Executor, InlineExecutor, ProcessExecutor, Submit, make_executor, map_unordered


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
