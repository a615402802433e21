"""Narrowing of the gap: for times between bound and plan, either a plan or a proof that there is none.

For each time the classes are divided among whole devices, or no division is found to exist, by backtracking. Where that
stays open, column generation covers the classes with parts of devices, which is made whole by CP-SAT over the class
sets at hand, else by diving; or its prices prove that there is no plan. Plans are looked for above the times that gave
none, proofs below those that gave none, in turn: a time that gives neither within its share of the clock is left to
the next pass.
"""

from collections.abc import Iterator
from functools import partial

from planner.solver.large.attempts import Attempts
from planner.solver.large.backtracking import Backtracking
from planner.solver.large.column_generation import ColumnGeneration, Outcome
from planner.solver.large.set_cover import ClassSet
from planner.solver.problem.clock import Clock

# The gap of the slowest device that is not looked into, as a share.
_PRECISION = 0.001
# Time of a step at least, and for a cover by whole devices [s]; share of the time left to make a cover whole.
_MIN_STEP_S, _WHOLE_S, _SHARE_OF_WHOLE = 0.5, 5.0, 0.3
# Whole units take up to so many times as long as parts of them.
_WHOLE_UNITS = 1.03


class Narrowing:
    """Times between a bound and a plan, as far as they are settled."""

    def __init__(
        self, backtracking: Backtracking, generation: ColumnGeneration, attempts: Attempts, slowest_us: int
    ) -> None:
        self._backtracking, self._generation, self._attempts = backtracking, generation, attempts
        # No plan is below `proven`, and within `covered` there is a relaxed one. Between `open_` and `without`, times
        # gave neither in this pass: plans are looked for above, proofs below.
        self._proven, self._covered = slowest_us, attempts.slowest_us
        self._without, self._open = self._proven, self._covered
        # Times that either method settled, for plans and for proofs, and some to begin with.
        self._settled = {for_plan: {"backtracking": 3, "generation": 1} for for_plan in (True, False)}

    def steps(self, clock: Clock, share: float) -> Iterator[int]:
        """Yield the bound on the slowest device [us] after each step of a pass: for a plan and for a proof in turn.

        Args:
            clock: Time for the pass.
            share: Share of it that one step may take.
        """
        step_s = max(_MIN_STEP_S, share * clock.left())
        self._covered = min(self._covered, self._attempts.slowest_us)
        self._without, self._open = self._proven, self._covered
        while not clock.expired():
            plan_us = _between(max(self._proven, self._without), self._covered)
            if plan_us is not None:
                self._step(plan_us, clock.part(step_s), clock, for_plan=True)
                yield self._proven
            proof_us = _between(self._proven, min(self._open, self._covered))
            if proof_us is not None and not clock.expired():
                self._step(proof_us, clock.part(step_s), clock, for_plan=False)
                yield self._proven
            if plan_us is None and proof_us is None:
                break
        for _ in self._with_whole_units(step_s, clock):
            yield self._proven

    def _step(self, target_us: int, step: Clock, clock: Clock, for_plan: bool) -> None:
        settled, method = self._settled[for_plan], "backtracking"
        share = settled["backtracking"] / sum(settled.values())
        outcome, chosen = self._divided(target_us, step.part(share * step.left()))
        if outcome == Outcome.OPEN and not step.expired():
            method = "generation"
            outcome = self._generation.attempt(target_us, step, by_growth=for_plan)
        settled[method] += outcome != Outcome.OPEN
        if outcome == Outcome.COVERED and (chosen or for_plan):
            # A cover is worth more time than looking for others.
            self._make_whole(target_us, chosen, clock.part(max(step.seconds, _SHARE_OF_WHOLE * clock.left())))
        self._covered = min(self._covered, self._attempts.slowest_us)
        if outcome == Outcome.COVERED:
            self._covered = min(self._covered, target_us)
        elif outcome == Outcome.REFUTED:
            self._proven = max(self._proven, target_us + 1)
        else:
            self._without, self._open = max(self._without, target_us), min(self._open, target_us)

    def _divided(self, target_us: int, clock: Clock) -> tuple[Outcome, list[ClassSet]]:
        try:
            chosen = self._backtracking.divided(target_us, clock)
        except TimeoutError:
            return Outcome.OPEN, []
        return (Outcome.REFUTED, []) if chosen is None else (Outcome.COVERED, chosen)

    def _make_whole(self, target_us: int, chosen: list[ClassSet], clock: Clock) -> None:
        """Try to make a plan within a target, or a little above, from a division or from the class sets at hand."""
        generation, attempts = self._generation, self._attempts
        if chosen:
            target_us = min(round(_WHOLE_UNITS * target_us), (target_us + attempts.slowest_us) // 2)
        else:
            chosen = generation.cover.whole(generation.columns(target_us), clock.part(_WHOLE_S)) or []
        if not chosen or not attempts.cover(chosen, target_us):
            servable = partial(attempts.servable, target_us=target_us)
            attempts.cover(generation.dive(target_us, servable, chosen, clock), target_us)

    def _with_whole_units(self, step_s: float, clock: Clock) -> Iterator[None]:
        """Look for plans between the least time that is covered and the best plan, which whole units make slower."""
        failed_us = self._covered - 1
        while not clock.expired() and (target_us := _between(failed_us, self._attempts.slowest_us)) is not None:
            outcome, chosen = self._divided(target_us, clock.part(step_s))
            if outcome == Outcome.OPEN:
                return
            if not chosen or not self._attempts.cover(chosen, target_us):
                failed_us = target_us
            yield


def _between(low_us: int, high_us: int) -> int | None:
    """Return the middle of two times; None if they are close together."""
    return (low_us + high_us) // 2 if high_us - low_us > max(1, round(_PRECISION * high_us)) else None
