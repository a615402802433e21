"""Linear relaxations of the sub-model problem: below every sub-model, by enumeration."""

import pytest

from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.sub_model_enumeration import NO_PLAN, SEEDS, cheapest_by_enumeration, instance_of, subsets


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_are_bounds(seed: int) -> None:
    """No sub-model of these classes, or of a superset with the same binding classes, is faster."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        relaxation = Relaxation(instance, option)
        for classes in subsets(instance):
            bound = relaxation.bound(classes)
            if bound is None:
                assert cheapest_by_enumeration(seed, o, classes)[0] == NO_PLAN
                continue
            assert set(bound.binding) <= set(classes)
            for others in subsets(instance):
                if set(bound.binding) <= set(others):
                    assert bound.by_count[len(others) - 1] <= cheapest_by_enumeration(seed, o, others)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_of_memory_are_bounds(seed: int) -> None:
    """No sub-model is smaller, whatever the budget."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        relaxation = Relaxation(instance, option, of_memory=True)
        always = instance.memory_bytes(option, ())
        for classes in subsets(instance):
            bound = relaxation.bound(classes)
            smallest = cheapest_by_enumeration(seed, o, classes)[1]
            if bound is None:
                assert smallest == NO_PLAN
            elif smallest < NO_PLAN:
                # The bound counts what is beyond the empty sub-model, which was rounded up.
                assert bound.by_count[len(classes) - 1] <= (smallest - always + 1) * option.costs.grains_per_byte
