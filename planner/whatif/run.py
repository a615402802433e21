"""Solves of scenarios, side by side, each warm-started from today's plan and independent of all others."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import cast

from planner.errors import InfeasibleError, InputError, TimeLimitError
from planner.rules.check import check
from planner.schema import TODAY, Fleet, Goal, Plan, Profile, sha256_of
from planner.schema.base import sha256_of_json
from planner.solver import DEFAULT_TIME_LIMIT_S, SolveOptions, WarmStart, solve, solve_and_learn
from planner.version import __version__
from planner.whatif.case import Case, ImpossibleError
from planner.whatif.change_request import Scenario
from planner.whatif.changes import apply_changes
from planner.whatif.expand import ExpandedScenario, case_key
from planner.whatif.result_cache import ResultCache
from planner.whatif.rows import ScenarioRow, Status, row_of, with_scenario
from planner.workers import Executor, InlineExecutor, map_unordered

# Called with the number of solved scenarios, and the number of all.
OnRow = Callable[[int, int], None]


def ignore_progress(done: int, total: int) -> None:
    """Ignore the progress."""


@dataclass(frozen=True)
class Today:
    """Base of all scenarios: the plan that runs today, or the reason why there is none, and the warm start from it."""

    profile: Profile
    fleet: Fleet
    goal: Goal
    plan: Plan | None
    row: ScenarioRow
    seed: int
    time_limit_s: float
    warm_start: WarmStart
    deterministic: bool = False

    @property
    def case(self) -> Case:
        """Today's fleet and goal, before any change."""
        return Case.of(self.profile, self.fleet, self.goal)


def today_of(
    profile: Profile,
    fleet: Fleet,
    goal: Goal | None = None,
    *,
    start: Plan | None = None,
    seed: int = 0,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    deterministic: bool = False,
    cache: ResultCache | None = None,
) -> Today:
    """Return today's plan with its profile, fleet and goal: the given plan, or the best one for the goal.

    Args:
        profile: Measurements of the model.
        fleet: Devices and links.
        goal: Constraints and objective; if a plan is given, its goal is taken.
        start: The plan that runs today.
        seed: Seed of the baselines' random subsets.
        time_limit_s: Time limit of each solve.
        deterministic: Count work instead of seconds in each solve, so that the same rows come out every time.
        cache: Results of an earlier, interrupted run.

    Raises:
        InputError: If these do not go together.
    """
    if start is not None:
        if problems := check(start, profile, fleet):
            raise InputError(f"The plan that runs today must be valid: {problems[0]}.")
        goal = start.goal
    goal = goal or Goal()
    hashes = [sha256_of(document) for document in (profile, fleet, goal)]
    key = sha256_of_json([*hashes, seed, time_limit_s, deterministic, __version__])
    began = time.monotonic()
    plan = start or (None if cache is None else cache.plan(key))
    known, status, reason, warm_start = plan, "impossible", None, WarmStart()
    try:
        with _interruptible():
            # A known plan is solved again for the warm start, which all scenarios share.
            solved, warm_start = solve_and_learn(
                profile,
                fleet,
                goal,
                SolveOptions(
                    seed=seed, time_limit_s=time_limit_s, deterministic=deterministic, start=known, advice=False
                ),
            )
        plan = known or solved
    except InfeasibleError as error:
        reason = str(error)
    except TimeLimitError as error:
        status, reason = "unknown", str(error)
    if known is None and plan is not None and cache is not None:
        cache.add_plan(key, plan)
    seconds = time.monotonic() - began
    row = ScenarioRow(TODAY, cast(Status, status), reason=reason, seconds=round(seconds, 3))
    if plan is not None:
        row = row_of(TODAY, plan, plan, profile, seconds)
    row = replace(row, out_of_time=not deterministic and seconds >= time_limit_s)
    return Today(profile, fleet, goal, plan, row, seed, time_limit_s, warm_start, deterministic)


def solve_scenarios(
    today: Today,
    scenarios: Sequence[ExpandedScenario],
    workers: Executor | None = None,
    cache: ResultCache | None = None,
    resume_hint: str = "run it again",
) -> Iterator[tuple[int, ScenarioRow]]:
    """Yield (position, row) for each scenario as it is solved, in any order.

    Args:
        today: Base of all scenarios.
        scenarios: Scenarios to solve.
        workers: Executor of the solves; this process unless given.
        cache: Rows of an earlier, interrupted run, which are not solved again; new rows are added to it.
        resume_hint: End of the message where workers die: how to go on.

    Raises:
        PlannerError: If workers die and cannot be done without.
    """
    cache = cache or ResultCache()
    same, base_key = case_key(today.case), _base_key(today)
    keys = [sha256_of_json([one.key, base_key]) for one in scenarios]
    waiting = []
    for i, (one, key) in enumerate(zip(scenarios, keys, strict=True)):
        if one.key == same:
            yield i, with_scenario(today.row, one.scenario.name)
        elif (row := cache.row(key)) is not None:
            yield i, with_scenario(row, one.scenario.name)
        else:
            waiting.append(i)
    calls = [(scenarios[i].scenario,) for i in waiting]
    for position, row in map_unordered(workers or InlineExecutor(), solve_scenario, today, calls, resume_hint):
        cache.add_row(keys[waiting[position]], row)
        yield waiting[position], row


def solve_all(
    today: Today,
    scenarios: Sequence[ExpandedScenario],
    workers: Executor | None = None,
    on_row: OnRow = ignore_progress,
) -> list[ScenarioRow]:
    """Return today's row and that of each scenario, in the order of the scenarios."""
    found: dict[int, ScenarioRow] = {}
    on_row(0, len(scenarios))
    for i, row in solve_scenarios(today, scenarios, workers):
        found[i] = row
        on_row(len(found), len(scenarios))
    return [today.row, *(found[i] for i in range(len(scenarios)))]


def solve_scenario(today: Today, scenario: Scenario) -> ScenarioRow:
    """Return the row of one scenario; without a plan, the row holds the reason."""
    began = time.monotonic()
    try:
        case = apply_changes(today.case, scenario.changes)
        with _interruptible():
            plan = solve(
                today.profile,
                case.fleet,
                case.goal,
                SolveOptions(
                    seed=today.seed,
                    time_limit_s=today.time_limit_s,
                    deterministic=today.deterministic,
                    start=today.plan,
                    warm_start=today.warm_start,
                    # Repairs of a scenario are other scenarios, and to search for them would take as long again.
                    advice=False,
                ),
            )
    except TimeLimitError as error:
        seconds = round(time.monotonic() - began, 3)
        return ScenarioRow(scenario.name, "unknown", reason=str(error), seconds=seconds, out_of_time=True)
    except (InfeasibleError, ImpossibleError, InputError) as error:
        return ScenarioRow(scenario.name, "impossible", reason=str(error), seconds=round(time.monotonic() - began, 3))
    seconds = time.monotonic() - began
    row = row_of(scenario.name, plan, today.plan, today.profile, seconds)
    return replace(row, out_of_time=not today.deterministic and seconds >= today.time_limit_s)


def _base_key(today: Today) -> str:
    """Return a hash of all that the row of a scenario depends on, apart from its fleet and goal."""
    plan = None if today.plan is None else today.plan.model_dump(mode="json", exclude={"solver"})
    settings = [today.seed, today.time_limit_s, today.deterministic]
    return sha256_of_json([sha256_of(today.profile), plan, *settings, __version__])


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end everything: a search by itself takes it as the end of its time and returns its best plan."""
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
