"""Channel groups, shares of importance that sum to one, and the order of embed dims."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.arrays import Floats
from planner.network.data import Samples
from planner.profiler.grouping import group_channels, group_size
from planner.profiler.importance import EXPONENTS, ImportanceMethod, measure_importance
from planner.profiler.importance_shares import embed_order, embed_retention, in_series, normalised_shares
from planner.profiler.importance_sums import UnitImportance
from tests.helpers.importance import SHAPE
from tests.helpers.plain_vit import random_model


def random_importance(seed: int, num_channels: int = 12) -> UnitImportance:
    """Return random importance of 4 classes for 3 blocks of 2 heads and 6 embed dims, with a scale for each class."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 10, (4, 1, 1))
    heads, channels = (rng.exponential(size=(4, 3, size)) * scale for size in (2, num_channels))
    return UnitImportance(heads, channels, rng.exponential(size=(4, 6)) * scale[:, 0])


@pytest.mark.parametrize("size", [1, 3, 4, 12])
@pytest.mark.parametrize("seed", range(3))
def test_groups_are_a_partition(size: int, seed: int) -> None:
    """Each channel is in exactly one group of its block, and every group has the given size."""
    groups = group_channels(random_importance(seed), size)
    assert len(groups) == 3
    for block in groups:
        assert sorted(channel for group in block for channel in group) == list(range(12))
        assert {len(group) for group in block} == {size}
        assert all(group == sorted(group) for group in block)


def test_channels_left_over_are_a_smaller_group() -> None:
    """Ten channels in groups of four make two groups of four and one of two."""
    groups = group_channels(random_importance(0, num_channels=10), 4)
    assert [[len(group) for group in block] for block in groups] == [[4, 4, 2]] * 3
    assert all(sorted(c for group in block for c in group) == list(range(10)) for block in groups)


def test_groups_put_like_with_like() -> None:
    """Channels that the same class needs are grouped together, regardless of scale and position.

    Class 0 needs channels 0, 2 and 4, class 1 (which counts in hundreds) 1, 3 and 5; all need 6, 7 and 8 a little.
    """
    channels = np.array([[[9.0, 0, 8, 0, 9, 0, 1, 1, 1]], [[0, 700.0, 0, 800, 0, 800, 100, 100, 100]]])
    importance = UnitImportance(np.zeros((2, 1, 1)), channels, np.ones((2, 4)), exponent=1.0)
    assert sorted(group_channels(importance, 3)[0]) == [[0, 2, 4], [1, 3, 5], [6, 7, 8]]


def test_groups_keep_levels_apart() -> None:
    """Strong and weak channels of one class are not mixed, so that a group is worth keeping, or not, as a whole."""
    channels = np.array([[[1.0, 9, 1, 9, 1, 9, 1, 9]]])
    importance = UnitImportance(np.zeros((1, 1, 1)), channels, np.ones((1, 4)), exponent=1.0)
    assert group_channels(importance, 4) == [[[1, 3, 5, 7], [0, 2, 4, 6]]]


def test_harm_counts_against_a_group() -> None:
    """Channels of 5 and -2 are a group of 3, those of -3 and 1 have no share; a head of 7 has the rest of 10."""
    importance = UnitImportance(
        np.array([[[7.0]]]), np.array([[[5.0, -2, -3, 1]]]), np.array([[-1.0, 3]]), exponent=1.0
    )
    assert normalised_shares(importance, [[[0, 1], [2, 3]]]) == ([[[0.7]]], [[[0.3, 0.0]]])
    assert embed_retention(importance, embed_order(importance), 1) == [1.0]


def test_a_class_that_nothing_helps_needs_all_alike() -> None:
    """When every unit harms class 1, a head and three groups have a quarter each, two dims a half."""
    heads, channels = np.array([[[1.0]], [[-1.0]]]), np.array([[[1.0, 1, 1]], [[-1.0, 0, -2]]])
    importance = UnitImportance(heads, channels, np.array([[3.0, 1], [-1, -1]]), exponent=1.0)
    groups = group_channels(importance, 1)
    of_heads, of_groups = normalised_shares(importance, groups)
    assert (of_heads[1], of_groups[1]) == ([[0.25]], [[0.25] * 3])
    assert embed_retention(importance, embed_order(importance), 1)[1] == 0.5


@pytest.mark.parametrize(("hidden", "size"), [(256, 8), (512, 8), (513, 16), (768, 16), (1536, 32), (3072, 64), (5, 8)])
def test_a_block_has_at_most_64_groups(hidden: int, size: int) -> None:
    """The group size is the smallest of 8, 16, 32, ... that makes at most 64 groups."""
    assert group_size(hidden) == size


def test_group_sizes_are_multiples_of_the_preferred_size() -> None:
    """768 channels in at most 64 groups are 12 or more each: 16 for multiples of 4, 12 of 12, 32 of 32."""
    assert [group_size(768, multiple) for multiple in (4, 12, 16, 32)] == [16, 12, 16, 32]


@pytest.mark.parametrize("seed", range(3))
def test_shares_sum_to_one_for_each_class(seed: int) -> None:
    """The shares of all heads and groups sum to 1 for each class despite rounding, also with a smaller last group."""
    importance = random_importance(seed)
    heads, groups = normalised_shares(importance, group_channels(importance, 5))
    assert np.shape(heads) == (4, 3, 2)
    assert np.shape(groups) == (4, 3, 3)
    np.testing.assert_allclose(np.sum(heads, axis=(1, 2)) + np.sum(groups, axis=(1, 2)), 1, rtol=0, atol=1e-12)


def test_a_share_is_a_power_of_what_a_group_has() -> None:
    """A head of 9 and groups of 2 + 2 and 10 + 15: with roots 3, 2, 5 of 10 together, without 9, 4, 25 of 38."""
    head, channels = np.array([[[9.0]]]), np.array([[[10.0, 2, 15, 2]]])
    groups = [[[1, 3], [0, 2]]]
    roots = UnitImportance(head, channels, np.ones((1, 4)), exponent=0.5)
    assert normalised_shares(roots, groups) == ([[[0.3]]], [[[0.2, 0.5]]])
    plain = UnitImportance(head, channels, np.ones((1, 4)), exponent=1.0)
    assert normalised_shares(plain, groups) == ([[[0.2368421]]], [[[0.1052632, 0.6578947]]])


def test_the_scale_of_a_class_does_not_matter() -> None:
    """A thousandfold importance gives the same shares, groups and order."""
    importance = random_importance(0)
    larger = UnitImportance(importance.heads * 1000, importance.channels * 1000, importance.embed_dims * 1000)
    groups = group_channels(importance, 3)
    assert group_channels(larger, 3) == groups
    for got, expected in zip(normalised_shares(larger, groups), normalised_shares(importance, groups), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-7)
    assert embed_order(larger) == embed_order(importance)


def test_embed_dims_are_ordered_by_what_all_classes_need() -> None:
    """Class 0 needs 6, 3, 1 of 10, class 1 0, 400, 600 of 1,000: on average 0.3, 0.35 and 0.35."""
    importance = UnitImportance(
        np.ones((2, 1, 1)), np.ones((2, 1, 1)), np.array([[6.0, 3, 1], [0, 400, 600]]), exponent=1.0
    )
    order = embed_order(importance)
    assert order == [1, 2, 0]
    assert embed_retention(importance, order, 1) == [0.3, 0.4]
    assert embed_retention(importance, order, 2) == [0.4, 1.0]
    assert embed_retention(importance, order, 3) == [1.0, 1.0]


def test_embed_retention_is_rounded_down() -> None:
    """Two of three equally needed dims retain 0.6666666, not 0.6666667."""
    importance = UnitImportance(np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.ones((1, 3)))
    assert embed_retention(importance, [0, 1, 2], 2) == [0.6666666]


@pytest.mark.parametrize("method", list(EXPONENTS))
def test_importance_of_a_real_network_is_a_share(samples: Samples, method: ImportanceMethod) -> None:
    """Measured importance can be grouped and normalised to shares within 0 and 1."""
    importance = measure_importance(method, random_model(SHAPE), samples)
    heads, groups = normalised_shares(importance, group_channels(importance, 2))
    assert np.shape(groups) == (3, 2, 3)
    for shares in (heads, groups, embed_retention(importance, embed_order(importance), 4)):
        assert np.min(shares) >= 0
        assert np.max(shares) <= 1
    np.testing.assert_allclose(np.sum(heads, axis=(1, 2)) + np.sum(groups, axis=(1, 2)), 1, rtol=0, atol=1e-12)


# In series


def test_units_in_series_by_hand() -> None:
    """Of shares 1/4 and 3/4 of a half-block, the larger is worth 0.75^0.7 of it, and the smaller the rest."""
    first = 0.75**0.7
    values = np.array([[1.0, 3.0], [6.0, 2.0]])
    np.testing.assert_allclose(in_series(values, 0.0), [[1 - first, first], [first, 1 - first]])
    np.testing.assert_allclose(
        in_series(values, 0.5), [[2 * (1 - first), 2 * first], [8**0.5 * first, 8**0.5 * (1 - first)]]
    )


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_a_half_block_that_no_class_needs_is_worth_nothing(exponent: float) -> None:
    """Not even at an exponent of zero; units that do nothing have no share of the others' worth."""
    np.testing.assert_array_equal(in_series(np.zeros((2, 3)), exponent), np.zeros((2, 3)))
    assert in_series(np.array([[0.0, 2.0, 0.0]]), exponent).tolist() == [[0.0, 2.0**exponent, 0.0]]


@given(
    hnp.arrays(float, (3, 6), elements=st.floats(0, 1e3, allow_subnormal=False)),
    st.floats(0, 1),
    st.permutations(range(6)),
)
def test_worth_in_series_keeps_the_order_and_the_total(values: Floats, exponent: float, order: list[int]) -> None:
    """More important units are worth more, all together the total to the power, and their order does not matter."""
    worth = in_series(values, exponent)
    assert (worth >= 0).all()
    totals = values.sum(axis=1)
    np.testing.assert_allclose(worth.sum(axis=1), np.where(totals > 0, totals**exponent, 0), rtol=1e-9)
    np.testing.assert_allclose(np.sort(in_series(values[:, order], exponent)), np.sort(worth), rtol=1e-6, atol=1e-9)
    for of_values, of_worth in zip(values, worth, strict=True):
        for a, b in itertools.combinations(range(6), 2):
            if of_values[a] > of_values[b]:
                assert of_worth[a] >= of_worth[b] - 1e-9


def test_the_first_unit_of_a_small_half_block_comes_before_the_last_of_a_large_one() -> None:
    """As measured, a half-block of a tenth of the importance is given up first; in series it keeps something."""
    heads, channels = np.array([[[9.0, 9.0, 9.0, 9.0]]]), np.array([[[1.0, 1.0, 1.0, 1.0]]])
    importance = UnitImportance(heads, channels, np.ones((1, 4)), exponent=1.0)
    groups = [[[0], [1], [2], [3]]]
    plain, series = normalised_shares(importance, groups), normalised_shares(importance, groups, 0.0)
    assert max(plain[1][0][0]) < min(plain[0][0][0])
    assert max(series[1][0][0]) > min(series[0][0][0])


def test_no_unit_is_too_small_for_a_floor_of_one() -> None:
    """Whatever little a unit is worth, without it a class retains less than 1 by more than the tolerance of floors."""
    heads = np.array([[[1.0, 1e-9, 0.0, 1.0]]])
    importance = UnitImportance(heads, np.array([[[5.0, 1e-12, 3.0]]]), np.ones((1, 4)), exponent=1.0)
    of_heads, of_groups = normalised_shares(importance, [[[0], [1], [2]]], 1.0)
    assert of_heads[0][0][1] == of_groups[0][0][1] == 5e-6
    assert of_heads[0][0][2] == 0
    assert sum(of_heads[0][0]) + sum(of_groups[0][0]) == pytest.approx(1, abs=1e-9)
