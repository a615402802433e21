"""The anchor head of a profile: of the last block, the one of most importance to all classes together."""

from fractions import Fraction

import pytest

from planner.rules.anchor_head import anchor_head
from planner.rules.check import check_sub_models
from planner.schema import Profile
from tests.helpers.drawn_plan import drawn_plan
from tests.helpers.pencil import profile, profile_data
from tests.helpers.random_instances import random_profile


def with_last_heads(*of_classes: list[float]) -> Profile:
    """Return the pencil profile with other heads of the last block; head 0 of block 0 makes up for the difference."""
    importance = profile_data()["importance"]
    for blocks, last in zip(importance["heads"], of_classes, strict=True):
        blocks[0][0] += sum(blocks[1]) - sum(last)
        blocks[1] = last
    return profile(importance=importance)


def test_the_anchor_head_by_hand() -> None:
    """Head 1 of the pencil's last block: 0.1 + 0.3 of the classes, where head 0 is 0.1 + 0.1."""
    assert anchor_head(profile()) == 1
    assert anchor_head(with_last_heads([0.2, 0.1], [0.0, 0.05])) == 0
    # The most for one class is not the most for all.
    assert anchor_head(with_last_heads([0.25, 0.15], [0.0, 0.125])) == 1


@pytest.mark.parametrize(
    "shares", [([0.125, 0.125], [0.0625, 0.0625]), ([0.0, 0.125], [0.125, 0.0]), ([0.0, 0.0],) * 2]
)
def test_the_first_of_equals_is_the_anchor_head(shares: tuple[list[float], list[float]]) -> None:
    """On ties the lowest index wins, even where no head has any importance."""
    assert anchor_head(with_last_heads(*shares)) == 0


def test_without_heads_there_is_none() -> None:
    """A model of MLPs alone has no anchor head, and the check asks for none."""
    importance = {"heads": [[[], []], [[], []]], "channel_groups": [[[0.25, 0.25], [0.25, 0.25]]] * 2}
    headless = profile(num_heads=0, importance=importance)
    assert anchor_head(headless) is None
    data = drawn_plan().model_dump(mode="json")
    for assignment in data["assignments"]:
        assignment["kept_heads"] = [[], []]
    assert check_sub_models(drawn_plan(assignments=data["assignments"]), headless) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_head_of_the_last_block_is_worth_more(seed: int) -> None:
    """In exact sums, no head has more importance, and none before it as much."""
    drawn = random_profile(seed, num_heads=1 + seed % 4, depth=1 + seed % 3)
    totals = [sum(Fraction(heads[-1][h]) for heads in drawn.importance.heads) for h in range(drawn.num_heads)]
    anchor = anchor_head(drawn)
    assert anchor is not None
    assert all(total < totals[anchor] for total in totals[:anchor])
    assert all(total <= totals[anchor] for total in totals)


def test_a_sub_model_without_it_is_refused() -> None:
    """Where only sub-models are checked, as before they are cut, the rule holds too."""
    data = drawn_plan().model_dump(mode="json")
    assert check_sub_models(drawn_plan(), profile()) == []
    data["assignments"][1]["kept_heads"][1] = []
    assert check_sub_models(drawn_plan(assignments=data["assignments"]), profile()) == [
        "far: kept_heads[1] must hold head 1, the anchor head that every sub-model keeps, got []"
    ]
