"""Growth of class sets: within the time by the relaxation, around their seed, and as the demands say."""

import numpy as np
import pytest

from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.conflicts import Conflicts
from planner.solver.large.growth import Growth
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.goals import floored
from tests.helpers.many_classes import GOALS, large


@pytest.mark.parametrize("name", ["latency", "pin", "forbid", "together", "apart"])
def test_grown_sets_are_possible(name: str) -> None:
    """Each grown set holds its seed, is allowed, and is within the time by a relaxation made anew; some are large."""
    profile, fleet = large(13)
    instance = build_instance(profile, fleet, floored(**GOALS[name]))
    single_us, largest = ClassBounds(instance).single_us, 0
    for o, option in enumerate(instance.options):
        conflicts = Conflicts(instance, option, single_us[o])
        possible = conflicts.single_us[conflicts.single_us < NEVER]
        for latency_us in (round(1.05 * possible.min()), round(1.3 * possible.max())) if len(possible) else ():
            growth = Growth(conflicts, latency_us)
            for seed in range(0, 13, 3):
                classes = growth.grown(seed, np.ones(13), Clock(60))
                if classes is None:
                    continue
                bound = Relaxation(instance, option).bound(classes)
                assert seed in classes
                assert instance.allows(option.group, classes)
                assert bound is not None
                assert bound.by_count[len(classes) - 1] + option.alone_us <= latency_us
                largest = max(largest, len(classes))
    assert largest >= 3


def test_sets_of_some_classes() -> None:
    """With time for all, a set holds the classes among which it is grown, and no others."""
    instance = build_instance(*large(13), floored())
    option = max(range(len(instance.options)), key=lambda o: int(instance.options[o].free_grains[0]))
    conflicts = Conflicts(instance, instance.options[option], ClassBounds(instance).single_us[option])
    among = {c for c in range(13) if conflicts.single_us[c] < NEVER and c % 2 == 0}
    assert len(among) > 2
    grown = Growth(conflicts, NEVER - 1, among).grown(min(among), np.ones(13), Clock(60))
    assert grown is not None
    assert set(grown) == among
