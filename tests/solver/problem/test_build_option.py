"""Options: whole numbers that are exact where they can be, and otherwise on the safe side."""

import itertools
import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.rules.floors import RETENTION_TOLERANCE
from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.build_option import common_scale, needs_of, scaled_up
from planner.solver.problem.instance import IMPORTANCE_SCALE
from tests.helpers.pencil import fleet, profile

numbers = st.fractions(min_value=0, max_value=1000, max_denominator=10**4)
shares = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(numbers, min_size=1, max_size=5), st.integers(1, 10**6))
def test_scaled_numbers_are_exact_or_rounded_up(drawn: list[Fraction], max_scale: int) -> None:
    """The scale makes all numbers whole where it may; otherwise each is rounded up by less than one."""
    scale = common_scale(drawn, max_scale)
    assert 1 <= scale <= max_scale
    exact = math.lcm(*(number.denominator for number in drawn)) <= max_scale
    for number in drawn:
        up = Fraction(scaled_up(number, scale), scale)
        assert number <= up < number + Fraction(1, scale)
        assert up == number or not exact


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(shares, min_size=3, max_size=3), st.lists(shares, min_size=3, max_size=3))
def test_needs_are_the_floors_over_what_is_left(floors: list[float], share: list[float]) -> None:
    """Each need is the floor, less half of the check's tolerance, over the share left, rounded up; 2 where none is."""
    needs = needs_of(share, np.array(floors))
    for c, n in itertools.product(range(3), range(3)):
        floor = Fraction(floors[c]) - Fraction(RETENTION_TOLERANCE) / 2
        highest = floor / Fraction(share[c]) if share[c] else Fraction(2)
        need = Fraction(0) if floor <= 0 else min(Fraction(2), highest)
        assert abs(int(needs[c, n]) - math.ceil(need * IMPORTANCE_SCALE)) <= 1


def test_an_option_by_hand() -> None:
    """The pencil board at embed dim 8: times in quarters of a microsecond, sizes in quarters of a byte."""
    instance = build_instance(profile(), fleet(), Goal(min_retention=0.5))
    (near,) = [o for o in instance.options if o.device.name == "near"]
    costs = near.costs
    # Head 1 of block 1 is the anchor head: its attention is fixed, 10.5 + 2 + 1.25 us.
    assert instance.units.always_kept == (5,)
    assert (costs.ticks_per_us, costs.fixed_ticks) == (4, 55)
    # Heads take 1.25 us; groups of 2 + 1 and of 1 + 2 channels 0.5 us a channel.
    assert costs.unit_ticks.tolist() == [5, 5, 4, 2, 5, 0, 2, 4]
    # Attention 2 us and MLP 3 us in each block, where it is not fixed.
    assert [s.charge_ticks for s in costs.unit_sets] == [8, 0, 12, 12]
    assert costs.grains_per_byte == 4
    # 7 params a head in block 0, 11 in block 1; 3 and 5 a channel; 4 bytes a param, 4 grains a byte.
    assert costs.unit_grains.tolist() == [[112, 112, 96, 48, 176, 0, 80, 160]]
    # 8.5 bytes a head, 4.25 a channel.
    assert [s.peak_grains.tolist() for s in costs.unit_sets] == [[34, 34], [34, 34], [34, 17], [17, 34]]
    # 2000 - 1000 - (50 + 11) params x 4 - 20 = 736 bytes.
    assert near.free_grains.tolist() == [4 * 736]
    # Over the first link: 100 bytes at 8 Mbit/s and 1 ms, and 8 x 4 bytes back.
    assert near.alone_us == 1100 + 1032
    # Floors of 0.5 at embed dim 8, which loses nothing, less half of the check's tolerance.
    assert (abs(near.need - 499_999_500) <= 1).all()
