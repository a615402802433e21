"""Construction of plans for many classes: every class is placed, within the target where it can be."""

import numpy as np
import pytest

from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.construct import construct, num_served, place_rest
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.large.loads import Loads
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.problem.placement import is_plan
from tests.helpers.many_classes import GOALS, empty_loads

CONSTRAINED = [name for name, goal in GOALS.items() if goal.get("objective", "latency") == "latency"]


def constructed(loads: Loads, target_us: int, at_any_cost: bool = False) -> bool:
    """Construct a plan on all devices, in the order of the intervals; return whether all classes were placed."""
    instance = loads.fleet.instance
    bounds = ClassBounds(instance)
    intervals = IntervalDP(instance, bounds)
    sequence = intervals.sequence(bounds.served(target_us), target_us) or []
    devices = list(range(len(loads.classes)))
    return construct(loads, intervals.order.tolist(), sequence, devices, target_us, Clock(600), at_any_cost)


@pytest.mark.parametrize("name", CONSTRAINED)
@pytest.mark.parametrize("num_classes", [13, 24])
def test_every_class_is_placed(name: str, num_classes: int) -> None:
    """Within a roomy target and within none at all, the result is a plan; within the roomy one it is in time."""
    for share in (2.0, 0.0):
        loads = empty_loads(name, num_classes)
        longest_us = ClassBounds(loads.fleet.instance).longest_us
        target_us = round(share * longest_us)
        assert constructed(loads, target_us, at_any_cost=True)
        assert loads.left.max() <= 0
        placed = loads.placed()
        assert is_plan(loads.fleet.instance, placed)
        for c in range(num_classes):
            assert sum(c in p.classes for p in placed) >= loads.fleet.copies
        if share and name not in ("survive", "all"):
            assert int(loads.latency_us.max()) <= target_us


def test_a_target_too_tight_is_given_up() -> None:
    """The construction fails if most classes are left over, unless they are placed at any cost."""
    loads = empty_loads("latency", 24)
    assert not constructed(loads, 0)
    assert (loads.left > 0).sum() > 0.1 * len(loads.left)


def test_the_number_served_is_served() -> None:
    """Sub-models for so many classes, from each rank on, are built in time; never more than the bound."""
    loads = empty_loads("latency", 13)
    instance, cache = loads.fleet.instance, loads.cache
    bounds = ClassBounds(instance)
    order, target_us = IntervalDP(instance, bounds).order, bounds.longest_us // 2
    max_served = bounds.served(target_us)
    extra_us = [100 * g for g in range(len(instance.groups))]
    found = num_served(cache, order, max_served, target_us, extra_us, Clock(600))
    assert (found <= max_served).all()
    assert found.any()
    for rank, c in enumerate(order.tolist()):
        for g, count in enumerate(found[c].tolist()):
            (sub_model,) = cache.sub_models([(g, tuple(sorted(order[rank : rank + count].tolist())))])
            assert sub_model.latency_us + (extra_us[g] if count else 0) <= target_us


def test_what_is_left_over_goes_where_it_may() -> None:
    """Left-over classes are placed on the given devices alone, where the demands allow it."""
    loads = empty_loads("apart", 13)
    devices = [0, 2, 3, 8]
    assert place_rest(loads, devices, Clock(600))
    assert loads.left.max() <= 0
    assert {d for d, classes in enumerate(loads.classes) if classes} <= set(devices)
    assert int(loads.latency_us.max()) < NEVER
    assert is_plan(loads.fleet.instance, loads.placed())
    assert not place_rest(empty_loads("apart", 13), devices, Clock(0))
    # Four classes must be apart: three devices are too few.
    assert not place_rest(empty_loads("apart", 13), devices[:3], Clock(600))


def test_pinned_classes_come_first() -> None:
    """Each device has what is pinned to it, with the classes that belong to it."""
    loads = empty_loads("pin", 13)
    assert constructed(loads, 0, at_any_cost=True)
    for device, pinned in enumerate(loads.fleet.pinned):
        assert set(pinned) <= set(loads.classes[device])
    assert np.count_nonzero([bool(pinned) for pinned in loads.fleet.pinned]) == 4
