"""What of a class set a device can really serve, against all sub-models by enumeration."""

from functools import partial

import numpy as np
import pytest

from planner.solver.large.attempts import Attempts
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.large.set_cover import ClassSet
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.submodels.relaxation import Relaxation
from planner.solver.submodels.rounding import rounded
from tests.helpers.sub_model_enumeration import NO_SUB_MODEL, enumerate_sub_models
from tests.helpers.thirteen_classes import best_us, generation_of, instance_of


@pytest.mark.parametrize("seed", [1, 5])
def test_a_part_is_really_served(seed: int) -> None:
    """A class set that a sub-model can serve in time is served whole, and of another a part that one can serve."""
    instance, within_us, rng = instance_of(seed), best_us(seed), np.random.default_rng(seed)
    bounds, clock = ClassBounds(instance), Clock(60)
    attempts = Attempts(instance, bounds, IntervalDP(instance, bounds), ObjectiveFunction(instance), clock, NEVER)
    conflicts = generation_of(instance).conflicts
    whole = parts = 0
    for o, option in enumerate(instance.options):
        table = enumerate_sub_models(instance, option)
        for _ in range(6):
            classes = tuple(sorted(rng.choice(13, int(rng.integers(3, 13)), replace=False).tolist()))
            relaxed_of = partial(conflicts[o].relaxed, clock=clock)
            found = attempts.servable(ClassSet(o, classes), relaxed_of, within_us)
            assert found.option == o
            assert set(found.classes) <= set(classes)
            if table.cheapest_us(classes) + option.alone_us <= within_us:
                assert found.classes == classes
                whole += 1
            elif found.classes:
                least_us = table.cheapest_us(found.classes)
                assert least_us < NO_SUB_MODEL
                assert least_us + option.alone_us <= within_us
                parts += 1
    assert whole
    assert parts


@pytest.mark.parametrize("seed", range(4))
def test_rounding_stays_within_budgets_and_time(seed: int) -> None:
    """Units kept as a whole stay where there is room for them, those removed stay removed, and nothing is exceeded."""
    instance = instance_of(seed)
    for option in instance.options:
        need = option.need[:, 0] / 1e9
        relaxed = Relaxation(instance, option, elastic=True).relaxed(tuple(range(0, 13, 2)), need)
        assert relaxed is not None
        worth = np.arange(len(instance.units), dtype=np.float64)
        for share in (0.5, 1.0, 1.1):
            within_us = round(share * option.costs.compute_us((relaxed.kept > 0)[None])[0])
            kept = rounded(option, relaxed, worth, within_us)
            assert (option.costs.grains(kept[None])[0] <= option.free_grains).all()
            nothing_us = option.costs.compute_us(np.zeros_like(kept)[None])[0]
            assert option.costs.compute_us(kept[None])[0] <= max(within_us, nothing_us)
            assert not kept[relaxed.kept <= 0].any()
            whole = relaxed.kept > 1 - 1e-6
            if share >= 1 and (option.costs.grains(whole[None])[0] <= option.free_grains).all():
                assert kept[whole].all()
