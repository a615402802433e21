"""Importance against a slow oracle: one image, one gate, one derivative at a time."""

import numpy as np
import pytest
import torch
from plain_vit import ones, plain_logits, random_images, random_model
from torch.nn import functional as F

from planner.network.data import Samples
from planner.network.vit import Shape
from planner.profiler.importance import UnitImportance, fisher, group_channels, normalised

SHAPE = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(2, 2), hidden_dim=(5, 5))
LABELS = torch.tensor([0, 2, 1, 2, 0, 2])


@pytest.fixture
def samples():
    """Six images of three classes: two, one and three of each."""
    return Samples(random_images(SHAPE, 6), LABELS)


def squared_derivatives(model, image, label):
    """Return the squared derivative of an image's loss by each head's gate (L, h) and each channel's (L, c).

    The network is `plain_vit`'s; each gate gets its own forward and backward pass.
    """
    squares = []
    for kind, sizes in enumerate((SHAPE.num_heads, SHAPE.hidden_dim)):
        of_kind = np.zeros((SHAPE.depth, sizes[0]))
        for l, u in np.ndindex(of_kind.shape):
            masks = ones(SHAPE)
            gate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
            masks[kind][l] = torch.cat([masks[kind][l][:u], gate.view(1), masks[kind][l][u + 1 :]])
            loss = F.cross_entropy(plain_logits(model, image[None], *masks), label[None])
            of_kind[l, u] = torch.autograd.grad(loss, gate)[0].item() ** 2
        squares.append(of_kind)
    return squares


def test_fisher_equals_one_derivative_at_a_time(samples):
    """A unit's importance for a class is its mean share of the squares, over the images of the class."""
    model = random_model(SHAPE)
    heads, channels = np.zeros((3, 2, 2)), np.zeros((3, 2, 5))
    for image, label in zip(samples.images, LABELS, strict=True):
        of_heads, of_channels = squared_derivatives(model, image, label)
        share = 1 / (of_heads.sum() + of_channels.sum()) / (label == LABELS).sum().item()
        heads[label] += of_heads * share
        channels[label] += of_channels * share
    got = fisher(model, samples)
    np.testing.assert_allclose(got.heads, heads, rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(got.channels, channels, rtol=1e-3, atol=1e-8)


def test_batches_do_not_matter(samples):
    """Fifty times the same images, more than fit a batch, give what they give once."""
    model = random_model(SHAPE)
    once, often = fisher(model, samples), fisher(model, samples.take(torch.arange(300) % 6))
    np.testing.assert_allclose(often.heads, once.heads, rtol=1e-4)
    np.testing.assert_allclose(often.channels, once.channels, rtol=1e-4, atol=1e-9)


def test_the_order_of_the_images_does_not_matter(samples):
    """The same images backwards give the same importance."""
    model = random_model(SHAPE)
    forwards, backwards = fisher(model, samples), fisher(model, samples.take(torch.arange(5, -1, -1)))
    np.testing.assert_allclose(backwards.heads, forwards.heads, rtol=1e-4)
    np.testing.assert_allclose(backwards.channels, forwards.channels, rtol=1e-4, atol=1e-9)


def test_a_unit_that_says_nothing_has_no_importance(samples):
    """A head and a channel whose output weights are zero matter to no class; all others matter."""
    model = random_model(SHAPE)
    with torch.no_grad():
        model.blocks[0].attn.proj.weight[:, 4:8] = 0  # head 1
        model.blocks[1].mlp.fc2.weight[:, 3] = 0
    importance = fisher(model, samples)
    assert not importance.heads[:, 0, 1].any()
    assert not importance.channels[:, 1, 3].any()
    assert np.count_nonzero(importance.heads) == 3 * (4 - 1)
    assert np.count_nonzero(importance.channels) == 3 * (10 - 1)


def test_fisher_leaves_the_model_as_it_is(samples):
    """Measuring changes no weight and leaves no gradient behind."""
    model = random_model(SHAPE)
    fisher(model, samples)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), random_model(SHAPE).parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def random_importance(seed, num_channels=12):
    """Return importances of 4 classes for 3 blocks of 2 heads, each class with a sum of its own."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 10, (4, 1, 1))
    return UnitImportance(rng.exponential(size=(4, 3, 2)) * scale, rng.exponential(size=(4, 3, num_channels)) * scale)


@pytest.mark.parametrize("size", [1, 3, 4, 12])
@pytest.mark.parametrize("seed", range(3))
def test_groups_are_a_partition(size, seed):
    """Each block's channels are in exactly one group each, and every group has the size."""
    groups = group_channels(random_importance(seed), size)
    assert len(groups) == 3
    for block in groups:
        assert sorted(channel for group in block for channel in group) == list(range(12))
        assert {len(group) for group in block} == {size}
        assert all(group == sorted(group) for group in block)


def test_channels_left_over_are_a_smaller_group():
    """Ten channels in groups of four are two groups of four and one of two."""
    groups = group_channels(random_importance(0, num_channels=10), 4)
    assert [[len(group) for group in block] for block in groups] == [[4, 4, 2]] * 3
    assert all(sorted(c for group in block for c in group) == list(range(10)) for block in groups)


def test_groups_put_like_with_like():
    """Channels are ranked by the share of the class that needs them most, whatever that class's scale.

    Class 0 needs 1, 3, 1, 5 of 10 (0.1, 0.3, 0.1, 0.5), class 1 400, 0, 500, 100 of 1,000 (0.4, 0, 0.5, 0.1):
    at most 0.4, 0.3, 0.5, 0.5, so channels 2 and 3 go together, and 0 and 1.
    """
    channels = np.array([[[1.0, 3, 1, 5]], [[400.0, 0, 500, 100]]])
    assert group_channels(UnitImportance(np.zeros((2, 1, 1)), channels), 2) == [[[2, 3], [0, 1]]]


@pytest.mark.parametrize("seed", range(3))
def test_shares_sum_to_one_for_each_class(seed):
    """All heads and groups together are 1 for each class, rounding made good."""
    importance = random_importance(seed)
    heads, groups = normalised(importance, group_channels(importance, 3))
    assert np.shape(heads) == (4, 3, 2)
    assert np.shape(groups) == (4, 3, 4)
    np.testing.assert_allclose(np.sum(heads, axis=(1, 2)) + np.sum(groups, axis=(1, 2)), 1, rtol=0, atol=1e-12)


def test_a_share_is_the_root_of_what_a_group_has():
    """A head of 9 and groups of 2 + 2 and 10 + 15 have roots 3, 2 and 5: of 10 together, 0.3, 0.2 and 0.5."""
    importance = UnitImportance(np.array([[[9.0]]]), np.array([[[10.0, 2, 15, 2]]]))
    assert normalised(importance, [[[1, 3], [0, 2]]]) == ([[[0.3]]], [[[0.2, 0.5]]])


def test_the_scale_of_a_class_does_not_matter():
    """A class whose every importance is a thousand times as large has the same shares."""
    importance = random_importance(0)
    larger = UnitImportance(importance.heads * 1000, importance.channels * 1000)
    groups = group_channels(importance, 3)
    assert group_channels(larger, 3) == groups
    for got, expected in zip(normalised(larger, groups), normalised(importance, groups), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-7)


def test_importance_of_a_real_network_is_a_share(samples):
    """What is measured of a network can be grouped and normalised: every number within 0 and 1."""
    importance = fisher(random_model(SHAPE), samples)
    heads, groups = normalised(importance, group_channels(importance, 2))
    assert np.shape(groups) == (3, 2, 3)
    for shares in (heads, groups):
        assert np.min(shares) >= 0
        assert np.max(shares) <= 1
    np.testing.assert_allclose(np.sum(heads, axis=(1, 2)) + np.sum(groups, axis=(1, 2)), 1, rtol=0, atol=1e-12)
