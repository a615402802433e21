"""Linear relaxations of the sub-model problem: below every sub-model, by enumeration."""

import pytest

from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import IMPORTANCE_SCALE
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.solver_instances import with_device
from tests.helpers.sub_model_enumeration import (
    NO_SUB_MODEL,
    SEEDS,
    cases,
    cheapest_by_enumeration,
    enumerate_sub_models,
    instance_of,
    subsets,
    table_of,
)


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_are_bounds(seed: int) -> None:
    """No sub-model of these classes, or of a superset with the same binding classes, is faster."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        relaxation = Relaxation(instance, option)
        for classes in subsets(instance):
            bound = relaxation.bound(classes)
            if bound is None:
                assert cheapest_by_enumeration(seed, o, classes) == NO_SUB_MODEL
                continue
            assert set(bound.binding) <= set(classes)
            for others in subsets(instance):
                if set(bound.binding) <= set(others):
                    assert bound.by_count[len(others) - 1] <= cheapest_by_enumeration(seed, o, others)


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_of_memory_are_bounds(seed: int) -> None:
    """No sub-model is smaller, whatever the budget."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        relaxation = Relaxation(instance, option, of_memory=True)
        empty_bytes = instance.memory_bytes(option, ())
        for classes in subsets(instance):
            bound = relaxation.bound(classes)
            smallest = table_of(seed, o).smallest_bytes(classes)
            if bound is None:
                assert smallest == NO_SUB_MODEL
            elif smallest < NO_SUB_MODEL:
                # The bound counts what is beyond the empty sub-model, which was rounded up.
                max_grains = (smallest - empty_bytes + 1) * option.costs.grains_per_byte
                assert bound.by_count[len(classes) - 1] <= max_grains


@pytest.mark.parametrize("seed", SEEDS[1::6])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_dual_cuts_hold_at_other_needs_and_budgets(seed: int, factor: float) -> None:
    """With other floors and budgets, no sub-model with the classes that a cut prices is below the cut."""
    before = instance_of(seed)
    fleet = before.fleet
    for i, device in enumerate(fleet.devices):
        fleet = with_device(fleet, i, memory_budget=round(factor * device.memory_budget))
    after = build_instance(before.profile, fleet, Goal(min_retention=0.6))
    compared = 0
    for old, new in zip(before.options, after.options, strict=True):
        relaxation, table = Relaxation(before, old), enumerate_sub_models(after, new)
        for classes in subsets(before):
            bound = relaxation.bound(classes)
            if bound is None or bound.cut is None:
                continue
            for others in subsets(after):
                if set(bound.binding) <= set(others):
                    need = new.need[:, len(others) - 1] / IMPORTANCE_SCALE
                    value = bound.cut.constant + bound.cut.per_grain * new.free_grains + bound.cut.prices @ need
                    assert value <= table.cheapest_us(others) * (1 + 1e-6) + 1e-6
                    compared += 1
    assert compared >= 100


def test_relaxations_are_not_trivial() -> None:
    """The bound of most class subsets is more than two thirds of the optimum."""
    shares = []
    for seed in SEEDS[::4]:
        for instance, o, option, classes in cases(seed):
            bound, exact = Relaxation(instance, option).bound(classes), cheapest_by_enumeration(seed, o, classes)
            if bound is not None and 0 < exact < NO_SUB_MODEL:
                shares.append(bound.by_count[len(classes) - 1] / exact)
    assert len(shares) > 100
    assert sorted(shares)[len(shares) // 2] > 2 / 3
