"""Protocol of an executor, and independent calls side by side in which lost calls are made again."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from planner.errors import PlannerError

_Result = TypeVar("_Result")

# submit(task, *args): a worker calls task(shared, *args).
Submit = Callable[..., "Future[Any]"]

# A call that kills its worker each time must not be repeated for ever.
MAX_LOSSES = 3


class Executor(Protocol):
    """Workers for calls that are independent of each other."""

    @property
    def num_workers(self) -> int:
        """Number of calls that are made at a time."""

    def session(self, shared: object, num_calls: int, resume_hint: str) -> AbstractContextManager[Submit]:
        """Open a session with the workers: submit(task, *args) has one of them call task(shared, *args).

        Args:
            shared: Data that all calls need; it travels to each worker once.
            num_calls: Largest number of calls at a time: more workers are not started.
            resume_hint: End of the message where workers die: what was finished, and how to go on.

        Raises:
            PlannerError: If workers die and cannot be done without.
        """


def map_unordered(
    workers: Executor,
    task: Callable[..., _Result],
    shared: object,
    calls: Sequence[tuple[Any, ...]],
    resume_hint: str,
) -> Iterator[tuple[int, _Result]]:
    """Make independent calls and yield (position, result) of each as it is done, in any order.

    Args:
        workers: Executor that makes the calls.
        task: A function of a module, called with `shared` and the arguments of a call.
        shared: Data that all calls need.
        calls: The arguments of each call.
        resume_hint: End of the message where workers die.

    Raises:
        PlannerError: If workers die and cannot be done without, or a call was lost too often.
    """
    if not calls:
        return
    waiting = list(range(len(calls)))[::-1]
    losses = [0] * len(calls)
    pending: dict[Future[_Result], int] = {}
    with workers.session(shared, len(calls), resume_hint) as submit:
        while waiting or pending:
            # One more than there are workers, so that no worker waits for its next call.
            while waiting and len(pending) <= workers.num_workers:
                i = waiting.pop()
                future = submit(task, *calls[i])
                pending[future] = i
                # A call of this process is done when it was submitted: its result is yielded before the next begins.
                if future.done():
                    break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                i = pending.pop(future)
                try:
                    result = future.result()
                except CancelledError:
                    losses[i] += 1
                    if losses[i] > MAX_LOSSES:
                        raise lost_error(f"call {i}", resume_hint) from None
                    waiting.append(i)
                    continue
                yield i, result


def lost_error(what: str, resume_hint: str) -> PlannerError:
    """Return the error for a call that no worker brings to its end."""
    return PlannerError(
        f"{what}: whoever ran it died, {MAX_LOSSES + 1} times, perhaps for want of memory; {resume_hint}."
    )
