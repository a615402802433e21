"""Time limit of a search, in seconds or in counted work, and its early stop."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ortools.sat.python import cp_model

T = TypeVar("T")

# A solver is never given less than this [s]: with nothing it says nothing.
_MIN_S = 0.01
# How long a grace is at least [s], and as a share of the time.
_MIN_GRACE_S, _SHARE_OF_GRACE = 1.0, 0.1


@dataclass
class _Shared:
    """State that a clock shares with its parts."""

    work_s: float = 0.0
    stopped: bool = False
    running: cp_model.CpSolver | None = None


class _Enough(cp_model.CpSolverSolutionCallback):
    """Stops at a solution that is good enough."""

    def __init__(self, enough: float) -> None:
        super().__init__()
        self._enough = enough

    def on_solution_callback(self) -> None:
        """Called by the solver with each better solution."""
        if self.objective_value <= self._enough:
            self.stop_search()


@dataclass
class Clock:
    """The time left for a search: seconds, or counted work that is the same on every machine.

    `stop` ends the search early, from another thread. It begins now, or at `began_s` by `time.monotonic`, which does
    not matter where work is counted.
    """

    seconds: float
    deterministic: bool = False
    began_s: float | None = None
    _shared: _Shared = field(default_factory=_Shared)
    _within: "Clock | None" = None
    _grace: "Clock | None" = None

    def __post_init__(self) -> None:
        begin = self._now() if self.deterministic or self.began_s is None else self.began_s
        self._end = begin + self.seconds

    def part(self, seconds: float) -> "Clock":
        """Return a clock for a part of the search: it ends with this one, or earlier."""
        return Clock(max(0.0, min(seconds, self.left())), self.deterministic, None, self._shared, self._within)

    def counted(self, work_s: float) -> "Clock":
        """Return a clock of so much counted work: what is found by then does not depend on how busy the machine is.

        It ends with this one, too.
        """
        return Clock(work_s, True, None, self._shared, self)

    def grace(self) -> "Clock":
        """Return a clock for what must be done when time is over: a tenth of it, or a second if that was granted.

        There is one grace, which begins when it is first asked for. What stops this clock stops it too.
        """
        if self._grace is None:
            within = None if self._within is None else self._within.rest()
            self._grace = Clock(self._grace_s, self.deterministic, None, self._shared, within)
        return self._grace

    def rest(self) -> "Clock":
        """Return a clock for what is done at last: the time that is left, or the grace if that is more."""
        return self if self._grace is None and self.left() >= self._grace_s else self.grace()

    @property
    def _grace_s(self) -> float:
        return min(self.seconds, max(_MIN_GRACE_S, _SHARE_OF_GRACE * self.seconds))

    def left(self) -> float:
        """Return the seconds that are left."""
        if self._shared.stopped:
            return 0.0
        left = self._end - self._now()
        return left if self._within is None else min(left, self._within.left())

    def expired(self) -> bool:
        """Say whether the search has to end."""
        return self.left() <= 0

    def spend(self, work_s: float) -> None:
        """Count work that took about this many seconds; it matters where work is what is counted."""
        self._shared.work_s += work_s

    def stop(self) -> None:
        """End the search, whatever runs."""
        self._shared.stopped = True
        if self._shared.running is not None:
            self._shared.running.stop_search()

    def solve(
        self,
        solver: cp_model.CpSolver,
        model: cp_model.CpModel,
        max_s: float = math.inf,
        enough: float = -math.inf,
    ) -> int:
        """Solve a model for as long as there is time, at most `max_s` [s], and return the status.

        It ends early with any solution whose objective, to be small, is at most `enough`.
        """
        seconds = max(_MIN_S, min(self.left(), max_s))
        # One worker gives the same answer every time.
        solver.parameters.num_workers = 1
        # ortools 9.15 can cut off the optimum where at-most-ones lie within linear rows, and call the rest
        # optimal (google/or-tools#5293): that part of presolve stays off.
        solver.parameters.presolve_inclusion_work_limit = 0
        solver.parameters.catch_sigint_signal = False
        if self.deterministic:
            solver.parameters.max_deterministic_time = seconds
            if self._within is not None:
                # What counts little may take long.
                solver.parameters.max_time_in_seconds = max(_MIN_S, self._within.left())
        else:
            solver.parameters.max_time_in_seconds = seconds
        self._shared.running = solver
        try:
            status = solver.solve(model, _Enough(enough) if enough > -math.inf else None)
        finally:
            self._shared.running = None
        self.spend(solver.response_proto.deterministic_time)
        return int(status)

    def _now(self) -> float:
        return self._shared.work_s if self.deterministic else time.monotonic()


def interruptible(search: Callable[[], T], clock: Clock) -> T:
    """Run a search so that Ctrl-C makes it return what it has; a second Ctrl-C ends it."""
    result: list[T] = []
    failure: list[BaseException] = []

    done = threading.Event()

    def run() -> None:
        try:
            result.append(search())
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    def wait() -> None:
        # Not by joining: a join that Ctrl-C ends takes the thread for finished.
        while not done.wait(0.1):
            pass

    # A solver in the main thread would keep Ctrl-C waiting until it is done.
    threading.Thread(target=run, daemon=True).start()
    try:
        wait()
    except KeyboardInterrupt:
        clock.stop()
        wait()
    if failure:
        raise failure[0]
    return result[0]
