"""Sub-models by the Lagrangian heuristic: feasible, never below the optimum, and near the relaxation."""

import numpy as np
import pytest

from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import NEVER
from planner.solver.submodels.lagrangian import LagrangianHeuristic
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, changed, roomy
from tests.helpers.sub_model_enumeration import (
    NO_SUB_MODEL,
    SEEDS,
    cases,
    cheapest_by_enumeration,
    instance_of,
    subsets,
)


@pytest.mark.parametrize("seed", SEEDS)
def test_built_sub_models_are_feasible(seed: int) -> None:
    """Built sub-models have the stated time, fit, keep the floors and are never below the optimum."""
    instance = instance_of(seed)
    found = 0
    for o, option in enumerate(instance.options):
        wanted = subsets(instance)
        built = LagrangianHeuristic(instance, option).build(wanted)
        for classes, time_us, row in zip(wanted, built.compute_us.tolist(), built.kept, strict=True):
            if time_us >= NEVER:
                continue
            kept = tuple(np.flatnonzero(row).tolist())
            found += 1
            assert instance.compute_us(option, kept) == time_us >= cheapest_by_enumeration(seed, o, classes)
            assert instance.fits(option, kept)
            assert instance.meets_floors(option, classes, kept)
    assert found or all(cheapest_by_enumeration(seed, o, classes) == NO_SUB_MODEL for _, o, _, classes in cases(seed))


@pytest.mark.parametrize(
    ("kinds", "tightness", "max_off"), [((), 4.0, 1.03), (("a", "b"), 4.0, 1.05), ((), 0.4, 1.06)], ids=str
)
def test_built_sub_models_are_near_the_bound(kinds: tuple[str, ...], tightness: float, max_off: float) -> None:
    """With 144 units, the median of hundreds is within a few percent of the relaxation, also when memory binds."""
    profile = random_profile(11, num_classes=12, kinds=kinds, **DIGITS)
    if tightness < 1:
        # Heads take little time and much memory, channels the other way round: one has to be paid for the other.
        widths = [w | {"head_params": [900] * 4, "head_macs": [200] * 4} for w in profile.model_dump()["widths"]]
        profile = changed(profile, widths=widths)
    fleet = random_fleet(profile, 11, num_devices=5, tightness=tightness)
    goal = floored(min_retention=0.7)
    instance, unbound = build_instance(profile, fleet, goal), build_instance(profile, roomy(fleet), goal)
    rng = np.random.default_rng(0)
    wanted = sorted({tuple(sorted(rng.permutation(12)[: 1 + i % 7].tolist())) for i in range(150)})
    off, missed, dearer = [], 0, 0
    for option in instance.options:
        relaxation = Relaxation(instance, option)
        roomy_option = next(o for o in unbound.options if o.device.name == option.device.name)
        free = Relaxation(unbound, roomy_option)
        built = LagrangianHeuristic(instance, option).build(wanted)
        for classes, time_us in zip(wanted, built.compute_us.tolist(), strict=True):
            bound, without_memory = relaxation.bound(classes), free.bound(classes)
            assert without_memory is not None
            n = len(classes) - 1
            if bound is None:
                assert time_us >= NEVER
                continue
            dearer += bound.by_count[n] > 1.01 * without_memory.by_count[n]
            missed += time_us >= NEVER
            if time_us < NEVER:
                assert bound.by_count[n] <= time_us
                off.append(time_us / bound.by_count[n])
    assert len(off) > 100
    assert missed <= 0.1 * len(off)
    assert float(np.median(off)) <= max_off
    assert dearer > 20 or tightness > 1
