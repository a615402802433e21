"""Calls one after the other, in this process."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from planner.workers.base import Submit


@dataclass(frozen=True)
class InlineExecutor:
    """This process: a call is made as it is submitted."""

    @property
    def num_workers(self) -> int:
        return 1

    @contextmanager
    def session(self, shared: object, num_calls: int, resume_hint: str) -> Iterator[Submit]:
        """Open a session, see `Executor`."""

        def submit(task: Callable[..., Any], *args: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            try:
                future.set_result(task(shared, *args))
            except Exception as error:
                future.set_exception(error)
            return future

        yield submit
