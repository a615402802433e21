"""Scenarios are solved, side by side, each from today's plan; none depends on another, or on who solved it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import cast

from planner.errors import InfeasibleError, InputError, TimeLimitError
from planner.rules.check import check
from planner.schema import TODAY, Fleet, Goal, Plan, Profile, sha256_of
from planner.schema.base import sha256_of_json
from planner.solver import DEFAULT_TIME_LIMIT_S, WarmStart, solve, solve_and_learn
from planner.version import __version__
from planner.whatif.case import Case, ImpossibleError
from planner.whatif.change_request import Scenario
from planner.whatif.changes import applied
from planner.whatif.expand import ExpandedScenario, key_of
from planner.whatif.result_cache import ResultCache
from planner.whatif.rows import ScenarioRow, Status, row_of, with_scenario
from planner.workers import Executor, InlineExecutor, results

# Called with the number of scenarios that are solved, and of all.
OnRow = Callable[[int, int], None]


def ignore_progress(done: int, total: int) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Today:
    """What all scenarios begin with: the plan that runs today, or why there is none; and what its search learned."""

    profile: Profile
    fleet: Fleet
    goal: Goal
    plan: Plan | None
    row: ScenarioRow
    seed: int
    time_limit_s: float
    experience: WarmStart

    @property
    def case(self) -> Case:
        """Today's fleet and goal, to be changed."""
        return Case.of(self.profile, self.fleet, self.goal)


def today_of(
    profile: Profile,
    fleet: Fleet,
    goal: Goal | None = None,
    *,
    start: Plan | None = None,
    seed: int = 0,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    kept: ResultCache | None = None,
) -> Today:
    """Return today's plan with what it was made of: the one that is given, or the best for the goal.

    Args:
        profile: What was measured of the model.
        fleet: The devices and their links.
        goal: What plans must hold, unless a plan is given: then its goal.
        start: The plan that runs today.
        seed: For the yardsticks' random subsets.
        time_limit_s: For each solve.
        kept: What an earlier run of the same solved.

    Raises:
        InputError: If these do not go together.
    """
    if start is not None:
        if problems := check(start, profile, fleet):
            raise InputError(f"The plan that runs today must be valid: {problems[0]}.")
        goal = start.goal
    goal = goal or Goal()
    key = sha256_of_json([sha256_of(profile), sha256_of(fleet), sha256_of(goal), seed, time_limit_s, __version__])
    began = time.monotonic()
    plan = start or (None if kept is None else kept.plan(key))
    known, status, reason, experience = plan, "impossible", None, WarmStart()
    try:
        with _interruptible():
            # A plan that is known is solved again for what is learned of it.
            solved, experience = solve_and_learn(
                profile, fleet, goal, seed=seed, time_limit_s=time_limit_s, start=known, advice=False
            )
        plan = known or solved
    except InfeasibleError as error:
        reason = str(error)
    except TimeLimitError as error:
        status, reason = "unknown", str(error)
    if known is None and plan is not None and kept is not None:
        kept.keep_plan(key, plan)
    seconds = time.monotonic() - began
    row = ScenarioRow(TODAY, cast(Status, status), reason=reason, seconds=round(seconds, 3))
    if plan is not None:
        row = row_of(TODAY, plan, plan, profile, seconds)
    return Today(profile, fleet, goal, plan, row, seed, time_limit_s, experience)


def solve_scenarios(
    today: Today,
    scenarios: Sequence[ExpandedScenario],
    workers: Executor | None = None,
    kept: ResultCache | None = None,
    hint: str = "run it again",
) -> Iterator[tuple[int, ScenarioRow]]:
    """Yield (position, row) for each scenario as it is solved, in any order.

    Args:
        today: Where they all start.
        scenarios: Changes to it.
        workers: Who solves; this process unless given.
        kept: Rows of an earlier run of the same, which are not solved again; new ones are put into it.
        hint: What is said where workers die: how to go on.

    Raises:
        PlannerError: If workers die and cannot be done without.
    """
    kept = kept or ResultCache()
    same, begun = key_of(today.case), _begun(today)
    keys = [sha256_of_json([one.key, begun]) for one in scenarios]
    waiting = []
    for i, (one, key) in enumerate(zip(scenarios, keys, strict=True)):
        if one.key == same:
            yield i, with_scenario(today.row, one.scenario.name)
        elif (row := kept.row(key)) is not None:
            yield i, with_scenario(row, one.scenario.name)
        else:
            waiting.append(i)
    calls = [(scenarios[i].scenario,) for i in waiting]
    for position, row in results(workers or InlineExecutor(), solve_scenario, today, calls, hint):
        kept.keep_row(keys[waiting[position]], row)
        yield waiting[position], row


def all_rows(
    today: Today,
    scenarios: Sequence[ExpandedScenario],
    workers: Executor | None = None,
    on_row: OnRow = ignore_progress,
) -> list[ScenarioRow]:
    """Return today's row and that of each scenario, in their order."""
    found: dict[int, ScenarioRow] = {}
    on_row(0, len(scenarios))
    for i, row in solve_scenarios(today, scenarios, workers):
        found[i] = row
        on_row(len(found), len(scenarios))
    return [today.row, *(found[i] for i in range(len(scenarios)))]


def solve_scenario(today: Today, scenario: Scenario) -> ScenarioRow:
    """Return one scenario's row; why there is no plan is a row, too."""
    began = time.monotonic()
    try:
        case = applied(today.case, scenario.changes)
        with _interruptible():
            plan = solve(
                today.profile,
                case.fleet,
                case.goal,
                seed=today.seed,
                time_limit_s=today.time_limit_s,
                start=today.plan,
                experience=today.experience,
                # What a scenario lacks is another scenario's question.
                advice=False,
            )
    except TimeLimitError as error:
        return ScenarioRow(scenario.name, "unknown", reason=str(error), seconds=round(time.monotonic() - began, 3))
    except (InfeasibleError, ImpossibleError, InputError) as error:
        return ScenarioRow(scenario.name, "impossible", reason=str(error), seconds=round(time.monotonic() - began, 3))
    return row_of(scenario.name, plan, today.plan, today.profile, time.monotonic() - began)


def _begun(today: Today) -> str:
    """Return a hash of all that a scenario's row depends on beside its fleet and goal."""
    plan = None if today.plan is None else today.plan.model_dump(mode="json", exclude={"solver"})
    return sha256_of_json([sha256_of(today.profile), plan, today.seed, today.time_limit_s, __version__])


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C end everything; a search alone takes it for the end of its time, and returns what it has."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noticed = False

    def notice(number: int, frame: FrameType | None) -> None:
        nonlocal noticed
        noticed = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noticed:
            raise KeyboardInterrupt
