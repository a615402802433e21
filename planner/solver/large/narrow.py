"""Narrowing of the gap: for times between bound and plan, either a plan or a proof that there is none.

A time within which the classes are covered, in part of devices, is tried with whole ones: by CP-SAT over the class sets
at hand, else by diving. Plans are looked for above the times that gave none, proofs below those that gave none, in
turn: a time that gives neither within its share of the clock is left to the next pass.
"""

from collections.abc import Iterator
from functools import partial

from planner.solver.large.attempts import Attempts
from planner.solver.large.column_generation import ColumnGeneration, Outcome
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER

# The gap of the slowest device that is not looked into, as a share.
_PRECISION = 0.001
# Time of a step at least, and for a cover by whole devices [s]; share of the time left to make a cover whole.
_MIN_STEP_S, _WHOLE_S, _SHARE_OF_WHOLE = 0.5, 5.0, 0.3


class Narrowing:
    """One pass over the times between a bound and a plan."""

    def __init__(self, generation: ColumnGeneration, attempts: Attempts, slowest_us: int, share: float) -> None:
        self._generation, self._attempts, self._share = generation, attempts, share
        # No plan is below `proven`; plans are looked for above `without`, proofs below `open_`.
        self._proven, self._without, self._open = slowest_us, slowest_us, attempts.slowest_us

    def steps(self, clock: Clock) -> Iterator[int]:
        """Yield the bound on the slowest device [us] after each step: for a plan and for a proof in turn."""
        step_s = max(_MIN_STEP_S, self._share * clock.left())
        while not clock.expired():
            for_plan, for_proof = self._between(self._without, NEVER), self._between(self._proven, self._open)
            if for_plan is None and for_proof is None:
                return
            if for_plan is not None:
                self._look_for_plan(for_plan, clock.part(step_s), clock)
                yield self._proven
            if for_proof is not None and self._proven < for_proof < self._open and not clock.expired():
                self._look_for_proof(for_proof, clock.part(step_s))
                yield self._proven

    def _between(self, low_us: int, high_us: int) -> int | None:
        """Return the middle of two times, of what is open yet; None if they are close together."""
        low_us, high_us = max(low_us, self._proven), min(high_us, self._attempts.slowest_us)
        return (low_us + high_us) // 2 if high_us - low_us > max(1, round(_PRECISION * high_us)) else None

    def _look_for_plan(self, target_us: int, step: Clock, clock: Clock) -> None:
        outcome = self._generation.attempt(target_us, step, by_growth=True)
        if outcome == Outcome.COVERED:
            self._open = min(self._open, target_us)
            # A cover is worth more time than looking for others.
            if self._made_whole(target_us, clock.part(max(step.seconds, _SHARE_OF_WHOLE * clock.left()))):
                return
        elif outcome == Outcome.REFUTED:
            self._proven = max(self._proven, target_us + 1)
        self._without = max(self._without, target_us)

    def _look_for_proof(self, target_us: int, clock: Clock) -> None:
        if self._generation.attempt(target_us, clock) == Outcome.REFUTED:
            self._proven = max(self._proven, target_us + 1)
        else:
            self._open = min(self._open, target_us)

    def _made_whole(self, target_us: int, clock: Clock) -> bool:
        """Try to make a plan within a target from class sets, and return whether it was made."""
        generation, attempts = self._generation, self._attempts
        columns = generation.columns(target_us)
        chosen = generation.cover.whole(columns, clock.part(_WHOLE_S))
        if chosen is not None and attempts.cover(chosen, target_us):
            return True
        fixed = generation.dive(target_us, partial(attempts.servable, target_us=target_us), chosen or (), clock)
        return attempts.cover(fixed, target_us)
