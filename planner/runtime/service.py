"""Answers for many threads: they ask, and the one thread that selects answers."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple

from numpy.typing import NDArray

from planner.errors import PlannerError
from planner.runtime.aggregator import Aggregator, Answer
from planner.runtime.measurements import DeviceState, FleetState

_MAX_WAITING = 256
_SNAPSHOT_NS = 500_000_000


class BusyError(PlannerError):
    """More images wait than may."""


class Snapshot(NamedTuple):
    """State of devices and fleet at one moment."""

    devices: tuple[DeviceState, ...]
    fleet: FleetState


class AnswerService:
    """Queue between threads that have images and the aggregator's loop.

    Args:
        aggregator: Aggregator, whose thread calls `run`.
        in_flight: Images under way at once; others wait.
    """

    def __init__(self, aggregator: Aggregator, in_flight: int = 1) -> None:
        self.input = aggregator.input
        self.snapshot = Snapshot(aggregator.states(), aggregator.fleet_state())
        """State as it was at most half a second ago."""
        self._aggregator, self._in_flight = aggregator, in_flight
        self._waiting: deque[tuple[NDArray[Any], Future[Answer]]] = deque()
        # All that is asked and not answered: what waits, and what is under way.
        self._asked: set[Future[Answer]] = set()
        self._is_stopped, self._has_ended = threading.Event(), threading.Event()

    def ask(self, image: NDArray[Any]) -> Answer:
        """Return the answer to an image (ch, H, W); any thread may call.

        Raises:
            BusyError: If too many images wait.
            InputError: If the image does not have the shape and type of the deployment.
            PlannerError: If the service ends before there is an answer.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise BusyError(f"At most {_MAX_WAITING} images may wait for an answer; ask again later.")
        future: Future[Answer] = Future()
        self._asked.add(future)
        self._waiting.append((image, future))
        self._aggregator.wake()
        # The loop may have ended meanwhile.
        if self._has_ended.is_set():
            self._refuse()
        try:
            return future.result()
        finally:
            self._asked.discard(future)

    def run(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        """Answer until `stop` is called or an exception such as Ctrl-C comes; each half second has a snapshot."""
        aggregator = self._aggregator
        next_snapshot = time.monotonic_ns()
        try:
            while not self._is_stopped.is_set():
                if time.monotonic_ns() >= next_snapshot:
                    next_snapshot = time.monotonic_ns() + _SNAPSHOT_NS
                    self.snapshot = Snapshot(aggregator.states(), aggregator.fleet_state())
                    on_snapshot(self.snapshot)
                while self._waiting and aggregator.num_in_flight < self._in_flight:
                    self._submit(*self._waiting.popleft())
                aggregator.step(next_snapshot)
        finally:
            self._has_ended.set()
            self._refuse()

    def stop(self) -> None:
        """Have `run` return; any thread may call."""
        self._is_stopped.set()
        self._aggregator.wake()

    def _submit(self, image: NDArray[Any], future: "Future[Answer]") -> None:
        try:
            self._aggregator.submit(image, future.set_result)
        except PlannerError as error:
            future.set_exception(error)

    def _refuse(self) -> None:
        for future in tuple(self._asked):
            # Two threads may tell it at once.
            with contextlib.suppress(InvalidStateError):
                future.set_exception(PlannerError("The aggregator was stopped."))
