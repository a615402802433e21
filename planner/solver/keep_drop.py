"""Solve for an accuracy drop: the lowest retention floors at which the finished plan is predicted to keep it.

Floors protect each class and carry the proof; how high they have to be depends on what all devices' features add, which
is known when a plan is finished. So the floor of a mean class is bisected, by its log odds: a plan whose predicted loss
is within the drop asks for lower floors, one that loses more for higher ones, and where there is no plan, lower ones
again. A floor at which one device alone would keep the drop keeps it for certain, if there is a plan.

What idle devices add is not always free: their features take time on a shared medium and in the fusion. So each plan is
finished at a few latencies from the least at its floors up, and of all that keep the drop the fastest is taken.

All of this is local search. Where its plan is far above the bound, smaller drops are searched for: their plans keep the
drop, too, and are other places to begin at.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.errors import InfeasibleError, PlannerError, TimeLimitError, setting
from planner.rules.accuracy import least_drop
from planner.rules.floors import accuracy_model_of
from planner.rules.retention import fleet_retention
from planner.schema import Plan
from planner.solver.accuracy_bound import AccuracyBound
from planner.solver.floor_levels import (
    DECIMALS,
    HIGHEST,
    LOWEST,
    highest_floor_met,
    log_odds_of,
    share_of,
    sufficient_log_odds,
)
from planner.solver.infeasible.no_plan import no_plan_error
from planner.solver.optimise import SearchOutcome
from planner.solver.options import SolveOptions
from planner.solver.plan import Solution, plan_of
from planner.solver.problem.build import at_floors, build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import ByDevice, by_device, is_plan, moved, placement_of_plan
from planner.solver.problem.retained import FleetUnits
from planner.solver.second_stage.accuracy_search import AccuracySearch
from planner.solver.second_stage.hasten import hastened
from planner.solver.solve_at_floors import search_at_floors
from planner.units import format_points

# Attempts at most, the share of the allowed loss above which a lower floor would bring little, and the share of the
# time after which a plan that keeps the drop is made faster instead.
_MAX_ATTEMPTS, _ENOUGH, _ATTEMPTS_SHARE = 5, 0.97, 0.35
# Log odds at which the bisection ends.
_PRECISION = 0.02
# Shares by which the latency of a plan at its floors may rise so that more devices help, which lets floors fall.
_STRETCHES = (0.0, 0.1, 0.3)
# Share of the time that an attempt may take, and of the rest that looking for a faster plan may take; what is left goes
# to the proof. Floors of a faster plan may be lower by this much, in log odds.
# It is looked for from so many other plans, too.
_ATTEMPT_SHARE, _HASTE_SHARE, _HASTE, _MAX_OTHERS = 0.05, 0.6, 1.5, 2
# Smaller drops that are searched for, as shares of the allowed one, where the latency is this many times its bound.
_SMALLER_DROPS, _FAR = (0.9, 0.8, 0.65), 1.15


@dataclass(frozen=True, eq=False)
class _Attempt:
    """Search at a retention floor: its result, the finished plan if there is one, and whether that keeps the drop."""

    instance: Instance
    outcome: SearchOutcome
    solution: Solution | None
    plan: Plan | None
    keeps: bool

    @property
    def loss(self) -> float:
        """Predicted loss of the plan."""
        return math.inf if self.plan is None else predicted_loss(self.plan)

    def rank(self) -> tuple[bool, float]:
        """Return a key that is lowest for the best plan that keeps the drop, or else for the most accurate one."""
        if self.plan is None or not self.keeps:
            return True, self.loss
        return False, self.plan.value


def _finished(instance: Instance, outcome: SearchOutcome, solution: Solution) -> _Attempt:
    plan = plan_of(solution, 0, 0.0)
    return _Attempt(instance, outcome, solution, plan, _keeps(instance, plan))


def predicted_loss(plan: Plan) -> float:
    """Return the loss that a plan is predicted to have, as a share."""
    assert plan.predicted_accuracy is not None
    return plan.predicted_accuracy.loss


def _points(share: float) -> str:
    """Return a loss in points, with a second decimal where one would round it."""
    return format_points(share) if math.isclose(round(share, 3), share) else f"{100 * share:.2f} points"


def predicted_to_lose(plan: Plan) -> str:
    """Return what a plan is predicted to lose, in words."""
    return f"predicted to lose {format_points(predicted_loss(plan))}"


def keeps_drop(solution: Solution) -> bool:
    """Return whether the plan of a solution is predicted to keep the accuracy drop of its goal."""
    return _keeps(solution.instance, plan_of(solution, 0, 0.0))


def solve_for_drop(instance: Instance, clock: Clock, options: SolveOptions) -> Solution:
    """Return the best plan at the lowest floors at which it is predicted to keep the accuracy drop.

    Args:
        instance: Problem, whose goal has an accuracy drop.
        clock: Time for all attempts.
        options: Budget, start and reports.

    Raises:
        InfeasibleError: If no plan is predicted to keep the drop, or there is none at all.
        TimeLimitError: If no plan was found in time, though one may exist.
    """
    accuracy_model_of(instance.profile)
    goal = instance.goal
    bound_us = AccuracyBound(instance).least_latency_us(goal.accuracy_drop or 0.0, goal.accuracy_confidence) or 0
    search = _FloorSearch(instance, clock, options)
    kept = search.run() or search.at_any_latency()
    if kept is None:
        raise search.error()
    if goal.objective == "latency" and goal.max_energy_mj is None:
        kept = search.beyond_local(search.hasten(kept, bound_us), bound_us)
    assert kept.solution is not None
    assert kept.plan is not None
    if goal.max_latency_us is not None and kept.plan.latency_us > goal.max_latency_us:
        raise no_plan_error(kept.instance, kept.outcome, clock, options)
    bound_us = min(bound_us, kept.plan.latency_us)
    if goal.objective == "latency":
        # Both hold for plans at these floors that keep the drop.
        return replace(kept.solution, bound=max(kept.solution.bound, bound_us), goal_bound_us=bound_us)
    return replace(kept.solution, goal_bound_us=bound_us)


def _keeps(instance: Instance, plan: Plan) -> bool:
    assert instance.goal.accuracy_drop is not None
    return _least_drop(instance, plan) <= instance.goal.accuracy_drop


def _least_drop(instance: Instance, plan: Plan) -> float:
    """Return the smallest accuracy drop that a plan is predicted to keep, with the goal's confidence if it has one."""
    retention = fleet_retention(plan.assignments, instance.profile)
    return least_drop(instance.profile, retention, instance.goal.accuracy_confidence)


class _FloorSearch:
    """Bisection of the retention floor of a mean class."""

    def __init__(self, instance: Instance, clock: Clock, options: SolveOptions) -> None:
        self._instance, self._clock, self._options = instance, clock, options
        self._attempts: list[_Attempt] = []

    def run(self) -> _Attempt | None:
        """Return the attempt of the lowest floor that keeps the drop, or None."""
        alone = sufficient_log_odds(self._instance.profile, self._instance.goal, 1)
        first = self._attempt(alone)
        kept = first if first.keeps else None
        if first.plan is None and self._attempt(LOWEST).plan is None:
            return None
        low, high = LOWEST, min(alone, HIGHEST)
        # Where all devices retain as much as their floors, they keep the drop together at a lower one.
        num_devices = sum(len(group.names) for group in self._instance.groups)
        middle = min(
            sufficient_log_odds(self._instance.profile, self._instance.goal, num_devices), high - 4 * _PRECISION
        )
        while len(self._attempts) < _MAX_ATTEMPTS and high - low > _PRECISION and not self._clock.expired():
            if kept is not None and (
                kept.loss >= _ENOUGH * (self._instance.goal.accuracy_drop or 0.0)
                or self._clock.left() < (1 - _ATTEMPTS_SHARE) * self._clock.seconds
            ):
                break
            found = self._attempt(max(middle, low), kept)
            if found.keeps:
                kept, high = min(found, kept or found, key=_Attempt.rank), middle
            elif found.plan is None:
                high = middle
            else:
                low = middle
            middle = (low + high) / 2
        return kept

    def at_any_latency(self) -> _Attempt | None:
        """Return a plan that keeps the drop, however slow, from the most accurate ones; None if none is found.

        The least latency at high floors may leave room for more accuracy, and higher floors may have no plan.
        """
        goal = self._instance.goal
        if goal.objective == "energy" or goal.max_energy_mj is not None:
            return None
        for attempt in sorted(self._attempts, key=lambda attempt: attempt.loss)[: 1 + _MAX_OTHERS]:
            if attempt.solution is None:
                continue
            lower = self._below(attempt)
            start = moved(lower, list(attempt.solution.by_device.values()))
            search = AccuracySearch(lower, start, goal.max_latency_us or NEVER)
            search.run(self._clock)
            if self._keeps_at(lower, search.placed):
                return self._proven(lower, search.placed, {})
        return None

    def hasten(self, kept: _Attempt, bound_us: int) -> _Attempt:
        """Return the fastest plan that is found from one that keeps the drop, with a bound for its floors."""
        assert kept.solution is not None
        lower = self._below(kept)
        start = moved(lower, list(kept.solution.by_device.values()))
        clock = self._clock.part(_HASTE_SHARE * self._clock.left())

        def keeps(placed: Sequence[PlacedSubModel]) -> bool:
            return self._keeps_at(lower, placed)

        # Those of other floors, the fastest first: they use other devices.
        plans = [attempt for attempt in self._attempts if attempt.plan is not None and attempt is not kept]
        plans.sort(key=lambda attempt: attempt.plan.latency_us if attempt.plan else math.inf)
        others = [moved(lower, list(a.solution.by_device.values())) for a in plans[:_MAX_OTHERS] if a.solution]
        faster = hastened(lower, start, others, keeps, bound_us, clock)
        earlier = {} if self._options.start is None else placement_of_plan(lower, self._options.start)
        before = tuple(earlier.values())
        if before and keeps(before):
            # Of plans equally good, nothing moves in this one.
            faster = min(before, faster, key=lower.fleet_latency_us)
        return kept if faster == tuple(start) else self._proven(lower, faster, earlier)

    def beyond_local(self, kept: _Attempt, bound_us: int) -> _Attempt:
        """Return an attempt, or a better one from a search for a smaller drop if it is far above its bound."""
        goal = self._instance.goal
        for share in _SMALLER_DROPS:
            assert kept.plan is not None
            bound = max(bound_us, kept.outcome.bound or 0)
            if self._clock.expired() or kept.plan.latency_us <= _FAR * bound or not goal.max_accuracy_drop:
                break
            stricter = goal.replace(max_accuracy_drop=share * goal.max_accuracy_drop)
            instance = build_instance(self._instance.profile, self._instance.fleet, stricter)
            search = _FloorSearch(instance, self._clock, self._options)
            found = search.run()
            if found is not None and found.solution is not None:
                lower = self._below(found)
                start = moved(lower, list(found.solution.by_device.values()))
                again = self._proven(lower, start, {})
                kept = min(kept, self.hasten(again, bound_us) if again.keeps else kept, key=_Attempt.rank)
        return kept

    def _below(self, attempt: _Attempt) -> Instance:
        """Return the instance with lower floors than those of an attempt."""
        log_odds = log_odds_of(attempt.instance.retention_floor or 0.0) - _HASTE
        return _with_floor(self._instance, share_of(max(LOWEST, log_odds)))

    def _keeps_at(self, instance: Instance, placed: Sequence[PlacedSubModel]) -> bool:
        if not is_plan(instance, placed):
            return False
        plan = plan_of(Solution(instance, by_device(instance, placed, {}), 0, self._options.warm_start), 0, 0.0)
        return _keeps(instance, plan)

    def _proven(self, lower: Instance, placed: Sequence[PlacedSubModel], earlier: ByDevice) -> _Attempt:
        """Return a placement that keeps the drop, or a better one, with a bound for the floors that it meets."""
        floor = highest_floor_met(lower.profile, placed, FleetUnits.of(lower, placed).rows)
        proven = self._attempt_at(floor, self._clock)
        instance = proven.instance
        solution = Solution(
            instance,
            by_device(instance, moved(instance, placed), {n: moved(instance, [p])[0] for n, p in earlier.items()}),
            proven.outcome.bound or 0,
            self._options.warm_start,
            method=proven.outcome.method,
        )
        found = _finished(instance, proven.outcome, solution)
        return min(found, proven, key=_Attempt.rank)

    def _attempt(self, log_odds: float, kept: _Attempt | None = None) -> _Attempt:
        """Return the attempt at a floor, no slower than the one that is to be bettered, if there is one."""
        # An attempt needs no proof; the one that counts is the last.
        clock = self._clock.counted(_ATTEMPT_SHARE * self._clock.seconds)
        below_us = NEVER if kept is None or kept.plan is None else kept.plan.latency_us
        return self._attempt_at(share_of(log_odds), clock, _STRETCHES, below_us)

    def _attempt_at(
        self, floor: float, clock: Clock, stretches: Sequence[float] = (0.0,), below_us: int = NEVER
    ) -> _Attempt:
        goal = self._instance.goal
        instance = _with_floor(self._instance, floor)
        outcome, solutions = search_at_floors(instance, clock, self._options, stretches)
        least_us = NEVER if outcome.placed is None else instance.fleet_latency_us(outcome.placed)
        may_stretch = goal.objective == "latency" and not goal.leave_idle
        best = _Attempt(instance, outcome, None, None, False)
        for stretch in stretches:
            # The first that keeps the drop, or else the most accurate: others are slower.
            if best.keeps or (stretch and (not may_stretch or (1 + stretch) * least_us >= below_us)):
                break
            solution = next(solutions, None)
            if solution is None:
                break
            best = min(_finished(instance, outcome, solution), best, key=_Attempt.rank)
            self._options = replace(self._options, warm_start=solution.warm_start)
        self._attempts.append(best)
        return best

    def error(self) -> PlannerError:
        """Return the error that says why no plan keeps the drop."""
        goal, best = self._instance.goal, min(self._attempts, key=lambda attempt: attempt.loss)
        if best.plan is None:
            # At the lowest floors, what stands in the way is least.
            lowest = min(self._attempts, key=lambda attempt: attempt.instance.retention_floor or 0.0)
            return no_plan_error(lowest.instance, lowest.outcome, self._clock, self._options)
        drop, least = _points(goal.accuracy_drop or 0.0), _least_drop(self._instance, best.plan)
        smallest = setting("max_accuracy_drop", f"{math.ceil(least * 1000) / 1000:g}")
        loss = predicted_to_lose(best.plan)
        if goal.accuracy_confidence is not None:
            loss += f", with a confidence of {goal.accuracy_confidence:g} at most {_points(least)}"
        if self._clock.expired():
            return TimeLimitError(
                f"No plan that is predicted to lose at most {drop} was found within {self._clock.seconds:g} s (not "
                f"proven impossible): the most accurate one so far is {loss}. Raise {setting('time_limit_s')}, or take "
                f"{smallest}."
            )
        # The first attempt was at floors that keep the drop for certain, so what makes a plan possible there works.
        certain = self._attempts[0]
        reason = no_plan_error(certain.instance, certain.outcome, self._clock, self._options)
        return InfeasibleError(
            f"No plan is predicted to lose at most {drop}: the most accurate one found is {loss}, so {smallest} has a "
            f"plan. With floors of {certain.instance.retention_floor:.2f}: {str(reason).removeprefix('No plan: ')}"
        )


def _with_floor(instance: Instance, floor: float) -> Instance:
    return at_floors(instance, round(floor, DECIMALS))
