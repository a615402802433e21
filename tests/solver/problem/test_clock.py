"""Clocks: seconds of a fake clock, counted work, and ends from outside."""

import _thread
import math
import sys
import threading
import time

import pytest
from ortools.sat.python import cp_model

from planner.solver.problem import clock as module
from planner.solver.problem.clock import Clock, interruptible


class FakeTime:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        """Return the time that was set."""
        return self.now_s


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """Replace the time that clocks read."""
    fake = FakeTime()
    monkeypatch.setattr(module, "time", fake)
    return fake


def test_seconds_pass(fake: FakeTime) -> None:
    """The time left falls with the seconds, and counted work does not matter."""
    clock = Clock(10)
    clock.spend(1000)
    assert (clock.left(), clock.expired()) == (10, False)
    fake.now_s += 9.5
    assert (clock.left(), clock.expired()) == (0.5, False)
    fake.now_s += 0.5
    assert (clock.left(), clock.expired()) == (0, True)


def test_time_that_began_earlier_counts(fake: FakeTime) -> None:
    """Of 10 s, 3 passed before there was a clock; the second of grace begins when it is asked for. Work is not time."""
    clock = Clock(10, began_s=97.0)
    assert clock.left() == 7
    fake.now_s += 7
    assert (clock.expired(), clock.rest().left()) == (True, 1)
    assert Clock(10, deterministic=True, began_s=0.0).left() == 10


def test_counted_work_passes(fake: FakeTime) -> None:
    """With counted work, seconds do not matter; parts count for the whole."""
    clock = Clock(10, deterministic=True)
    fake.now_s += 1000
    part = clock.part(4)
    part.spend(3)
    assert (clock.left(), part.left()) == (7, 1)
    clock.spend(1)
    assert part.expired()
    assert not clock.expired()


def test_a_part_ends_with_the_whole_or_earlier(fake: FakeTime) -> None:
    """A part has its own seconds, but no more than are left."""
    clock = Clock(10)
    assert clock.part(3).left() == 3
    assert clock.part(30).left() == 10
    fake.now_s += 8
    assert clock.part(3).left() == 2
    fake.now_s += 8
    assert clock.part(3).left() == 0


@pytest.mark.parametrize(("seconds", "grace_s"), [(0.0, 0.0), (0.5, 0.5), (5.0, 1.0), (10.0, 1.0), (60.0, 6.0)])
def test_more_time_after_the_end(fake: FakeTime, seconds: float, grace_s: float) -> None:
    """The grace is a tenth of the time or a second, never more than the time itself, and there is only one."""
    clock = Clock(seconds)
    fake.now_s += seconds + 1
    assert clock.expired()
    assert clock.grace().left() == pytest.approx(grace_s)
    fake.now_s += grace_s / 2
    assert clock.grace().left() == pytest.approx(grace_s / 2)
    assert clock.rest().left() == pytest.approx(grace_s / 2)


def test_the_rest_is_what_is_left_or_the_grace(fake: FakeTime) -> None:
    """Whatever is done at last ends a tenth after the limit, or sooner."""
    clock = Clock(20)
    fake.now_s += 5
    assert clock.rest().left() == 15
    fake.now_s += 14
    assert clock.rest().left() == 2
    fake.now_s += 1
    assert clock.rest().left() == 1


def test_counted_work_ends_with_the_seconds_around_it(fake: FakeTime) -> None:
    """Parts, and the grace, of counted work end with the clock that it was granted by, at the latest in its grace."""
    clock = Clock(20)
    counted = clock.counted(4)
    part = counted.part(3)
    fake.now_s += 18
    assert (counted.left(), part.left()) == (2, 2)
    fake.now_s += 2
    assert (counted.left(), part.left()) == (0, 0)
    assert counted.grace().left() == 1
    fake.now_s += 2
    assert counted.grace().left() == 0


def test_stopping_ends_all_that_belongs_together(fake: FakeTime) -> None:
    """A stopped clock ends its parts, and what is made of it later."""
    clock = Clock(10)
    part, grace, other = clock.part(5), clock.grace(), Clock(10)
    part.stop()
    assert [c.left() for c in (clock, part, grace, clock.rest())] == [0, 0, 0, 0]
    assert other.left() == 10


def knapsack_model() -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    """Return a small covering knapsack; its optimum is 9."""
    model = cp_model.CpModel()
    x = [model.new_bool_var("") for _ in range(5)]
    model.add(7 * x[0] + 5 * x[1] + 4 * x[2] + 3 * x[3] + x[4] >= 9)
    model.minimize(7 * x[0] + 5 * x[1] + 4 * x[2] + 3 * x[3] + 2 * x[4])
    return model, x


@pytest.mark.parametrize("deterministic", [False, True])
def test_models_are_solved_within_the_time_left(deterministic: bool) -> None:
    """A model gets the time left, a part of it or a least time, and its work is counted."""
    model, _ = knapsack_model()
    limits = []
    for seconds, max_s in ((10.0, math.inf), (10.0, 2.0), (0.0, math.inf)):
        clock, solver = Clock(seconds, deterministic), cp_model.CpSolver()
        assert clock.solve(solver, model, max_s) == cp_model.OPTIMAL
        assert solver.objective_value == 9
        parameters = solver.parameters
        limits.append(parameters.max_deterministic_time if deterministic else parameters.max_time_in_seconds)
        assert parameters.num_workers == 1
        if deterministic:
            assert clock.left() == pytest.approx(seconds - solver.response_proto.deterministic_time)
    assert limits == pytest.approx([10.0, 2.0, 0.01], abs=0.5 if not deterministic else 1e-9)


def test_a_good_enough_solution_ends_a_solve() -> None:
    """With `enough` the first solution at most that is taken, and it is one."""
    model, x = knapsack_model()
    solver = cp_model.CpSolver()
    status = Clock(10).solve(solver, model, enough=100)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    weights = (7, 5, 4, 3, 1)
    assert sum(w for w, v in zip(weights, x, strict=True) if solver.boolean_value(v)) >= 9


# --- interruptions


def test_a_search_returns_its_result_or_raises_its_error() -> None:
    """The result or error of the search's thread is returned or raised in the calling one."""
    threads = []

    def search() -> str:
        threads.append(threading.current_thread())
        return "plan"

    assert interruptible(search, Clock(10)) == "plan"
    assert threads != [threading.current_thread()]

    def failing() -> str:
        raise ValueError("no such plan")

    with pytest.raises(ValueError, match="no such plan"):
        interruptible(failing, Clock(10))


def is_waiting(thread: threading.Thread) -> bool:
    """Return whether a thread waits for its search, where an interrupt is expected."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if (frame.f_code.co_name, frame.f_code.co_filename) == ("wait", module.__file__):
            return True
        frame = frame.f_back
    return False


def search_until_stopped(clock: Clock) -> str:
    """Interrupt the main thread once it waits, then search until the clock has ended."""
    while not is_waiting(threading.main_thread()):
        time.sleep(0.001)
    _thread.interrupt_main()
    while not clock.expired():
        time.sleep(0.001)
    return "best so far"


def test_ctrl_c_stops_the_clock_and_returns_what_there_is() -> None:
    """An interrupt of the main thread ends the search, whose result is returned."""
    clock = Clock(30)
    assert interruptible(lambda: search_until_stopped(clock), clock) == "best so far"
    assert clock.left() == 0
