"""Independent calls, side by side: what those who make them promise, and how lost calls are begun again."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from planner.errors import PlannerError

T = TypeVar("T")

# submit(task, *args): somebody calls task(carried, *args).
Submit = Callable[..., "Future[Any]"]

# How often a call may be lost with whoever made it.
MAX_LOSSES = 3


class Executor(Protocol):
    """Those who make calls that are independent of each other."""

    @property
    def width(self) -> int:
        """How many calls are made at a time."""

    def lent(self, carried: object, num_calls: int, kept: str) -> AbstractContextManager[Submit]:
        """Lend the workers: submit(task, *args) has one of them call task(carried, *args).

        Args:
            carried: What all calls need; it travels to each worker once.
            num_calls: How many are made at a time at most: more workers are not started.
            kept: What is said where workers die: what was finished, and how to go on.

        Raises:
            PlannerError: If workers die and cannot be done without.
        """


def results(
    workers: Executor, task: Callable[..., T], carried: object, calls: Sequence[tuple[Any, ...]], kept: str
) -> Iterator[tuple[int, T]]:
    """Make independent calls and yield (position, result) of each as it is done, in any order.

    Args:
        workers: Who makes them.
        task: A function of a module, called with `carried` and the arguments of a call.
        carried: What all calls need.
        calls: The arguments of each.
        kept: What is said where workers die.

    Raises:
        PlannerError: If workers die and cannot be done without, or a call was lost too often.
    """
    if not calls:
        return
    waiting = list(range(len(calls)))[::-1]
    losses = [0] * len(calls)
    pending: dict[Future[T], int] = {}
    with workers.lent(carried, len(calls), kept) as submit:
        while waiting or pending:
            # One more than there are workers, so that nobody waits for the next.
            while waiting and len(pending) <= workers.width:
                i = waiting.pop()
                future = submit(task, *calls[i])
                pending[future] = i
                if future.done():
                    break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                i = pending.pop(future)
                try:
                    result = future.result()
                except CancelledError:
                    losses[i] += 1
                    if losses[i] > MAX_LOSSES:
                        raise lost_error(f"call {i}", kept) from None
                    waiting.append(i)
                    continue
                yield i, result


def lost_error(what: str, kept: str) -> PlannerError:
    """Return the complaint that nobody brings something to its end."""
    return PlannerError(f"{what}: whoever ran it died, {MAX_LOSSES + 1} times, perhaps for want of memory; {kept}.")
