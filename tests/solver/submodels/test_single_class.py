"""Bounds from one class alone: below every sub-model, and by hand."""

import pytest

from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import NEVER
from planner.solver.submodels.single_class import single_class_us
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.sub_model_enumeration import enumerate_sub_models, subsets
from tests.helpers.varied_instances import VARIED, varied_instance


@pytest.mark.parametrize("seed", VARIED[::6])
def test_no_sub_model_is_faster_than_its_hardest_class(seed: int) -> None:
    """By enumeration, no sub-model is faster than the bound of any of its classes."""
    instance = varied_instance(seed)
    for option in instance.options:
        bound_us, table = single_class_us(instance, option), enumerate_sub_models(instance, option)
        for classes in subsets(instance):
            assert bound_us[list(classes), len(classes) - 1].max() <= min(NEVER, table.cheapest_us(classes))


def test_what_a_class_takes_by_itself_by_hand() -> None:
    """Class a at 0.5 on the gateway: 1200 MACs for 0.1, then the units of most importance per MAC, divisible.

    The 1200 are the fixed ones and the anchor head, head 1 of block 1. Groups of 0.1 each take 10, 20, 20 and 40
    MACs; the head of 0.3 takes 100, which is better than the last group. So 0.3 for 50 MACs, and a third of the
    head: 1283.33 / 3 = 427.8 us. Class b has 0.3 in the anchor head: 0.1 for 10, then half of 0.2 for 20: 1220 / 3.
    """
    alone = fleet(devices=fleet_data()["devices"][:1], links=[])
    instance = build_instance(profile(), alone, Goal(min_retention=0.5))
    wide = next(option for option in instance.options if option.embed_dim == 8)
    assert single_class_us(instance, wide).tolist() == [[428, 428], [407, 407]]
