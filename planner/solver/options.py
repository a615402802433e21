"""Options of a solve that do not change what is asked for."""

from dataclasses import dataclass

from planner.schema import Plan
from planner.solver.exact.warm_start import NO_WARM_START, WarmStart
from planner.solver.problem.search import Progress, no_progress

DEFAULT_TIME_LIMIT_S = 30.0


@dataclass(frozen=True)
class SolveOptions:
    """Budget, start and reports of a solve.

    Args:
        seed: Seed of the baselines' random subsets; the exact method draws nothing.
        time_limit_s: Time after which the best plan so far is returned, with its gap.
        began_s: When that time began, by `time.monotonic`; with the solve unless given.
        deterministic: Count work instead of seconds, so that the same plan comes out on every machine.
        start: Earlier plan, of this fleet or one like it: it speeds the search up, and of plans equally good, the
            nearest to it is returned.
        warm_start: Result of `solve_and_learn`, of this fleet or one like it: it speeds the search up.
        progress: Callback with the best objective so far, if there is one, and its bound.
        advice: Where there is no plan, look for the smallest changes that would do: it may take as long as a search.
    """

    seed: int = 0
    time_limit_s: float = DEFAULT_TIME_LIMIT_S
    began_s: float | None = None
    deterministic: bool = False
    start: Plan | None = None
    warm_start: WarmStart = NO_WARM_START
    progress: Progress = no_progress
    advice: bool = True


DEFAULT_OPTIONS = SolveOptions()
