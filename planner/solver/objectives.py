"""Each objective as one search, or a few.

Latency and energy are searched for as they are; so is the fewest devices, and then the least
latency with that many. The best lowest retention is found by halving: is there a plan within the
latency limit if every floor is raised to r?
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.cost import retention
from planner.solver import exact, many, submodel
from planner.solver.build import build
from planner.solver.clock import Clock
from planner.solver.experience import NONE, Experience
from planner.solver.instance import DEVICES, EMBED_DIMS, NEVER, Found, Instance, Ints, Placed, Progress
from planner.solver.knowledge import ComputeTime, Knowledge
from planner.solver.promise import Judge

# Retention is stated in parts per million.
PPM = 10**6


@dataclass(frozen=True)
class Outcome:
    """What a search came to: the best plan and the bound on its objective, and what was learned on the way.

    The bound is in microseconds, units of energy, devices, or (for accuracy) parts per million of
    retention; where no plan was found within the latency limit for accuracy, it is the latency's.
    """

    instance: Instance
    placed: tuple[Placed, ...] | None
    bound: int | None
    knowledge: Knowledge | None


class Search:
    """One instance's searches, which share what they learn."""

    def __init__(self, instance: Instance, clock: Clock, experience: Experience = NONE) -> None:
        self.instance, self._clock, self._experience = instance, clock, experience
        small = instance.num_classes <= exact.MOST_CLASSES and instance.options
        self.knowledge = Knowledge(instance, ComputeTime(instance), experience) if small else None

    @property
    def experience(self) -> Experience:
        """What is known by now, for other searches to begin with."""
        return self._experience if self.knowledge is None else self.knowledge.experience()

    def run(
        self,
        judge: Judge,
        progress: Progress,
        earlier: tuple[Placed, ...] = (),
        enough: int = 0,
        give_up: int = NEVER,
        most: Ints | None = None,
    ) -> Found:
        """Search for what the judge likes best; see `exact.search`."""
        if not self.instance.options:
            return Found(None, None)
        if self.knowledge is None:
            return many.search(self.instance, self._clock, progress, judge, earlier, enough, give_up, most)
        found = exact.search(self.knowledge, self._clock, progress, judge, earlier, enough, give_up, most)
        if found.placed is not None or found.bound is None or found.bound >= give_up:
            return found
        # Out of time on the way to the best plan: any plan is better than none.
        grace = self._clock.grace()
        some = many.search(self.instance, grace, progress, judge, earlier, NEVER - 1, give_up, most)
        if some.placed is None or some.bound is None:
            return found
        return Found(some.placed, max(found.bound, some.bound))


def optimise(
    instance: Instance,
    clock: Clock,
    progress: Progress,
    earlier: tuple[Placed, ...] = (),
    experience: Experience = NONE,
) -> Outcome:
    """Return the best plan for the instance's objective, with its bound.

    Args:
        instance: What to plan.
        clock: When to stop.
        progress: Called with the best objective so far and the bound, in the units of the plan's file.
        earlier: Sub-models to begin with, of an earlier plan.
        experience: What is known already.
    """
    objective = instance.goal.objective
    if objective == "accuracy":
        return _most_accurate(instance, clock, progress, earlier, experience)
    scale = 1000 * instance.energy_scale if objective == "energy" else 1
    search = Search(instance, clock, experience)
    if instance.max_energy is not None and objective != "energy":
        # A plan within the energy limit is easier found by looking for little energy.
        frugal = search.run(Judge(instance, "energy"), quietly, earlier, enough=instance.max_energy)
        earlier = frugal.placed or earlier

    def scaled(best: float | None, bound: float) -> None:
        progress(None if best is None else best / scale, bound / scale)

    found = search.run(Judge(instance, objective), scaled, earlier)
    placed = found.placed
    if objective == "devices" and placed is not None and not clock.expired():
        most = np.full(instance.num_resources, NEVER)
        most[DEVICES] = len(placed)
        faster = search.run(Judge(instance), quietly, placed, most=most)
        placed = faster.placed or placed
    return Outcome(instance, placed, found.bound, search.knowledge)


def _most_accurate(
    instance: Instance, clock: Clock, progress: Progress, earlier: tuple[Placed, ...], experience: Experience
) -> Outcome:
    """Raise the floors until no plan is within the latency limit."""
    limit_us = instance.goal.max_latency_us
    assert limit_us is not None

    def within_limit(raised: Instance, known: Experience, begin: tuple[Placed, ...] = ()) -> tuple[Found, Search]:
        search = Search(raised, clock, known)
        found = search.run(Judge(raised), quietly, begin, enough=limit_us, give_up=limit_us + 1)
        if found.placed is not None and raised.fleet_latency_us(found.placed) > limit_us:
            found = Found(None, found.bound)
        return found, search

    found, search = within_limit(instance, experience, earlier)
    if found.placed is None:
        return Outcome(instance, None, found.bound, search.knowledge)
    best, low, high = found.placed, 0, PPM
    while True:
        best = _levelled(instance, best, limit_us, clock)
        low = max(low, _lowest_ppm(instance, best))
        progress(low / PPM, high / PPM)
        if low >= high or clock.expired():
            break
        # The last step is the hardest to prove: it is taken when nothing else is left.
        middle = (low + high + 1) // 2
        raised = build(instance.profile, instance.fleet, instance.goal, middle / PPM)
        found, search = within_limit(raised, search.experience)
        if found.placed is not None:
            best = _onto(instance, raised, found.placed)
            if _lowest_ppm(instance, best) < middle:
                # So near that only rounding is between them.
                break
        elif found.bound is None or found.bound > limit_us:
            high = middle - 1
        else:
            break
    reached = build(instance.profile, instance.fleet, instance.goal, low / PPM)
    knowledge = Search(reached, clock, search.experience).knowledge
    return Outcome(reached, _onto(reached, instance, best), max(low, high), knowledge)


def quietly(best: float | None, bound: float) -> None:
    """Report nothing."""


def _onto(instance: Instance, other: Instance, placed: Sequence[Placed]) -> tuple[Placed, ...]:
    """Return a plan of an instance that differs in its floors only as one of this instance."""
    return tuple(Placed(instance.options[other.options.index(p.option)], p.classes, p.kept) for p in placed)


def _lowest_ppm(instance: Instance, placed: Sequence[Placed]) -> int:
    """Return the least retention of any class on any device, to the nearest part per million."""
    return min(_retention_ppm(instance, p) for p in placed)


def _retention_ppm(instance: Instance, p: Placed) -> int:
    units, profile, at = instance.units, instance.profile, p.option.at
    heads, groups = units.blocks(p.kept, heads=True), units.blocks(p.kept, heads=False)
    names = [profile.classes[c] for c in p.classes]
    kept = (retention(profile, name, at.width.embed_dim, heads, groups, at.precision) for name in names)
    # Rounded as plans state it, first.
    return min(round(PPM * round(share, 6)) for share in kept)


def _levelled(instance: Instance, placed: Sequence[Placed], limit_us: int, clock: Clock) -> tuple[Placed, ...]:
    """Raise the lowest retention as far as its own device's time allows, then the next lowest."""
    if instance.max_energy is not None:
        # What a device is given, another may have to go without: left to the search.
        return tuple(placed)
    used = instance.used(p.option for p in placed)
    slowest_us = limit_us - instance.fusion_us(int(used[EMBED_DIMS]))
    current = list(placed)
    done: set[int] = set()
    while len(done) < len(current) and not clock.expired():
        lowest = [_retention_ppm(instance, p) for p in current]
        i = min(range(len(current)), key=lowest.__getitem__)
        if i in done:
            break
        p = current[i]
        compute_us = slowest_us - instance.path_us(p.option, used)
        better = Placed(p.option, p.classes, submodel.level(instance, p.option, p.classes, compute_us, p.kept, clock))
        if _retention_ppm(instance, better) > lowest[i]:
            current[i] = better
        done.add(i)
    return tuple(current)
