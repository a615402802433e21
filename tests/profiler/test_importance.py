"""Importance against slow oracles: one image, one unit at a time, in plain arithmetic."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from planner.errors import InputError
from planner.network.data import Samples
from planner.network.surgery import cut
from planner.network.vit import Shape
from planner.profiler import gradient_importance, kl_importance
from planner.profiler.grouping import group_channels, group_size
from planner.profiler.importance import EXPONENTS, ImportanceMethod, measure_importance
from planner.profiler.importance_shares import embed_order, embed_retention, normalised
from planner.profiler.importance_sums import UnitImportance
from tests.helpers.plain_vit import ones, plain_logits, random_images, random_model

ROOT = Path(__file__).parent.parent.parent

SHAPE = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(2, 2), hidden_dim=(5, 5))
LABELS = torch.tensor([0, 2, 1, 2, 0, 2])
KINDS = ("heads", "channels", "embed_dims")
ALL_KINDS = ((2, 2), (2, 5), (8,))


@pytest.fixture
def samples():
    """Six images of three classes: two, one and three of each."""
    return Samples(random_images(SHAPE, 6), LABELS)


def with_written_dims(model, factors):
    """Return a model in float64 whose every write to the residual stream is multiplied, each embed dim by its factor.

    The weights that write are changed, the norms are not.
    """
    scaled = copy.deepcopy(model).double()
    with torch.no_grad():
        for name, p in scaled.named_parameters():
            if name in ("cls_token", "pos_embed"):
                p.mul_(factors)
            elif name.startswith("patch_embed") or ".attn.proj." in name or ".mlp.fc2." in name:
                p.mul_(factors.view(-1, *[1] * (p.ndim - 1)))
    return scaled


def loss_with(model, image, label, head_gates, channel_gates, dim_gates):
    """Return an image's loss with a multiplier for each unit."""
    scaled = with_written_dims(model, dim_gates)
    return F.cross_entropy(plain_logits(scaled, image[None], head_gates, channel_gates), label[None]).item()


def derivatives(model, image, label, at):
    """Return the derivative of an image's loss by each gate, by central differences: heads, channels and embed dims."""
    step, found = 1e-5, [np.zeros(size) for size in ALL_KINDS]
    for kind, values in enumerate(found):
        for index in np.ndindex(values.shape):
            losses = []
            for sign in (1, -1):
                moved = copy.deepcopy(at)
                gate = moved[kind][index[0]] if kind < 2 else moved[kind]
                gate[index[-1]] += sign * step
                losses.append(loss_with(model, image, label, *moved))
            values[index] = (losses[0] - losses[1]) / (2 * step)
    return found


def all_open():
    """Return gates of 1 for every head, channel and embed dim."""
    return [*ones(SHAPE), torch.ones(8, dtype=torch.float64)]


@pytest.mark.parametrize(("method", "of"), [("fisher", np.square), ("taylor", np.abs)])
def test_derivatives_equal_one_gate_at_a_time(samples, method, of):
    """A unit's importance for a class is its mean share of squares (or sizes), over the images of the class."""
    model = random_model(SHAPE)
    expected = [np.zeros((3, *size)) for size in ALL_KINDS]
    for image, label in zip(samples.images, LABELS, strict=True):
        heads, channels, dims = (of(values) for values in derivatives(model, image, label, all_open()))
        weight = 1 / (label == LABELS).sum().item()
        units = heads.sum() + channels.sum()
        for sums, share in zip(expected, (heads / units, channels / units, dims / dims.sum()), strict=True):
            sums[label] += weight * share
    got = measure_importance(method, model, samples)
    for kind, values in zip(KINDS, expected, strict=True):
        np.testing.assert_allclose(getattr(got, kind), values, rtol=1e-3, atol=1e-6)


def test_thinned_networks_equal_one_gate_at_a_time(samples):
    """With a quarter of the gates closed: the derivatives there, sign changed, and the shares of their squares."""
    model = random_model(SHAPE)
    rises, squares = (
        of(model, samples.images[:2], LABELS[:2], torch.Generator().manual_seed(5))
        for of in (gradient_importance.rises, gradient_importance.thinned_squares)
    )
    generator = torch.Generator().manual_seed(5)
    # A head and a channel mask for each block, then one for the embed dims; never quite 0, at which the oracle would
    # take a whole half, bias and all.
    drawn = [(torch.rand(2, size, generator=generator) < 0.75).double().clamp_min(1e-12) for size in (2, 5, 2, 5, 8)]
    assert 0 < sum(mask.sum() for mask in drawn) < 44
    for i in range(2):
        at = [[drawn[0][i], drawn[2][i]], [drawn[1][i], drawn[3][i]], drawn[4][i]]
        heads, channels, dims = derivatives(model, samples.images[i], LABELS[i], at)
        units = (heads**2).sum() + (channels**2).sum()
        for kind, values, total in zip(KINDS, (heads, channels, dims), (units, units, (dims**2).sum()), strict=True):
            np.testing.assert_allclose(getattr(rises, kind)[i], -values, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(getattr(squares, kind)[i], values**2 / total, rtol=1e-3, atol=1e-6)


def test_shapley_is_the_mean_of_rises(samples):
    """The importance is the mean over a class's images, below zero where a unit does harm."""
    model = random_model(SHAPE)
    rises = gradient_importance.rises(model, samples.images, LABELS, torch.Generator().manual_seed(7 * 1_000_003))
    got = measure_importance("shapley", model, samples, seed=7)
    for kind in KINDS:
        mean = torch.stack([getattr(rises, kind)[c == LABELS].mean(0) for c in range(3)])
        np.testing.assert_allclose(getattr(got, kind), mean, rtol=1e-9)


def test_kl_equals_masking(samples):
    """A unit's importance is the divergence from the answer of a network that lacks it; few images are all taken."""
    model = random_model(SHAPE)

    def log_answer(heads, channels, dims):
        return plain_logits(model, samples.images, heads, channels, dims).log_softmax(1)

    whole = log_answer(*all_open())
    got = measure_importance("kl", model, samples)
    for kind, size in enumerate(ALL_KINDS):
        for index in np.ndindex(size):
            masks = all_open()
            (masks[kind][index[0]] if kind < 2 else masks[kind])[index[-1]] = 0
            divergence = F.kl_div(log_answer(*masks), whole, reduction="none", log_target=True).sum(1)
            for c in range(3):
                expected = divergence[c == LABELS].mean().item()
                assert getattr(got, KINDS[kind])[(c, *index)] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_kl_takes_a_few_images_of_each_class():
    """Of 20 and 3 images of two classes, 8 and 3 are drawn; another seed draws others."""
    labels = torch.tensor([0] * 20 + [1] * 3)
    drawn = kl_importance.sample(Samples(torch.zeros(23, 1), labels), seed=0)
    assert torch.bincount(labels[drawn]).tolist() == [8, 3]
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert drawn.tolist() != kl_importance.sample(Samples(torch.zeros(23, 1), labels), seed=1).tolist()


def squared_norm(model):
    """Return the squared norm of a network's matrices."""
    return sum(
        (p.double() ** 2).sum().item() for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1
    )


def test_magnitude_is_the_norm_that_a_cut_takes(samples):
    """A unit's importance is what the squared norm of all matrices loses when it is cut, for every class."""
    model = random_model(SHAPE)
    got = measure_importance("magnitude", model, samples)
    keep = [[0, 1], [0, 1]], [list(range(5))] * 2, list(range(8))
    without_head = cut(model, [[0, 1], [1]], keep[1])
    without_channel = cut(model, keep[0], [[0, 1, 3, 4], keep[1][1]])
    without_dim = cut(model, keep[0], keep[1], [e for e in range(8) if e != 6])
    for c in range(3):
        assert got.heads[c, 1, 0] == pytest.approx(squared_norm(model) - squared_norm(without_head))
        assert got.channels[c, 0, 2] == pytest.approx(squared_norm(model) - squared_norm(without_channel))
        assert got.embed_dims[c, 6] == pytest.approx(squared_norm(model) - squared_norm(without_dim))


def test_a_distilled_model_is_measured_too():
    """Two prefix tokens and two head layers change nothing about what is measured."""
    shape = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(2, 2), hidden_dim=(5, 5), distilled=True)
    samples = Samples(random_images(shape, 6), LABELS)
    for method in EXPONENTS:
        got = measure_importance(method, random_model(shape), samples)
        assert [getattr(got, kind).shape for kind in KINDS] == [(3, *size) for size in ALL_KINDS]
        assert got.embed_dims.any(axis=1).all()


def test_batches_do_not_matter(samples):
    """Fifty times the same images, more than fit a batch, give what they give once."""
    model = random_model(SHAPE)
    once, often = (measure_importance("fisher", model, s) for s in (samples, samples.take(torch.arange(300) % 6)))
    for kind in KINDS:
        np.testing.assert_allclose(getattr(often, kind), getattr(once, kind), rtol=1e-4, atol=1e-9)


def test_the_order_of_the_images_does_not_matter(samples):
    """The same images backwards give the same importance."""
    model = random_model(SHAPE)
    forwards, backwards = (
        measure_importance("fisher", model, s) for s in (samples, samples.take(torch.arange(5, -1, -1)))
    )
    for kind in KINDS:
        np.testing.assert_allclose(getattr(backwards, kind), getattr(forwards, kind), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("method", ["thinned", "shapley", "fisher", "taylor", "kl"])
def test_a_unit_that_says_nothing_has_no_importance(samples, method):
    """A head and a channel whose output weights are zero matter to no class; others matter."""
    model = random_model(SHAPE)
    with torch.no_grad():
        model.blocks[0].attn.proj.weight[:, 4:8] = 0  # head 1
        model.blocks[1].mlp.fc2.weight[:, 3] = 0
    importance = measure_importance(method, model, samples)
    assert importance.heads[:, 0, 1] == pytest.approx(np.zeros(3), abs=1e-9)
    assert importance.channels[:, 1, 3] == pytest.approx(np.zeros(3), abs=1e-9)
    assert abs(importance.heads[:, 0, 0]).max() > 1e-6


@pytest.mark.parametrize("method", list(EXPONENTS))
def test_measuring_leaves_the_model_as_it_is(samples, method):
    """Measuring changes no weight and leaves no gradient behind."""
    model = random_model(SHAPE)
    measure_importance(method, model, samples)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), random_model(SHAPE).parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Stop(KeyboardInterrupt):
    """What an impatient user does."""


@pytest.mark.parametrize("method", ["thinned", "fisher", "kl"])
def test_an_interrupted_measurement_goes_on(samples, method, tmp_path, monkeypatch):
    """Stopped after two batches of three and started again, it ends bit for bit as an unbroken one."""
    monkeypatch.setattr(gradient_importance, "_MOST_IMAGES", 2)
    monkeypatch.setattr(kl_importance, "_MOST_IMAGES", 2)
    model, state, seen = random_model(SHAPE), tmp_path / "state.safetensors", []
    unbroken = measure_importance(method, model, samples)

    def stop_after_four(done, total):
        seen.append((done, total))
        if done == 4:
            raise Stop(f"after {done} of {total}")

    with pytest.raises(Stop, match="after 4 of 6"):
        measure_importance(method, model, samples, stop_after_four, state)
    assert seen == [(2, 6), (4, 6)]
    resumed = measure_importance(method, model, samples, lambda done, total: seen.append((done, total)), state)
    assert seen == [(2, 6), (4, 6), (6, 6)]
    finished = measure_importance(method, model, samples, lambda done, total: seen.append((done, total)), state)
    assert len(seen) == 3
    for kind in KINDS:
        assert np.array_equal(getattr(resumed, kind), getattr(unbroken, kind))
        assert np.array_equal(getattr(finished, kind), getattr(unbroken, kind))


def test_another_measurement_s_state_is_refused(samples, tmp_path):
    """Other weights, images, labels, another method or seed: one sentence says which, and what to do."""
    model, state = random_model(SHAPE), tmp_path / "state.safetensors"
    measure_importance("fisher", model, samples, state=state)
    others: list[tuple[str, ImportanceMethod, object, Samples, int]] = [
        ("weights must be", "fisher", random_model(SHAPE, seed=1), samples, 0),
        ('method must be "taylor", got "fisher"', "taylor", model, samples, 0),
        ("number of images must be 5, got 6", "fisher", model, samples.take(torch.arange(5)), 0),
        ("labels must be", "fisher", model, samples.take(torch.tensor([1, 0, 2, 3, 4, 5])), 0),
        ("seed must be 3, got 0", "fisher", model, samples, 3),
    ]
    for message, method, other, images, seed in others:
        with pytest.raises(InputError, match=f"another measurement: {message}.*; delete it to begin again"):
            measure_importance(method, other, images, state=state, seed=seed)
    state.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"not a state of measured importance \(.*\); delete it to begin again"):
        measure_importance("fisher", model, samples, state=state)


def test_a_class_without_images_is_refused(samples):
    """There is nothing to measure its needs on."""
    with pytest.raises(InputError, match="every class must have images to measure importance on, class 1 has none"):
        measure_importance("fisher", random_model(SHAPE), samples.take(torch.tensor([0, 1, 3])))


def test_an_image_that_is_not_finite_is_refused(samples):
    """A pixel that is no number would make everything nothing."""
    samples.images[4, 0, 1, 1] = torch.nan
    with pytest.raises(InputError, match="must have finite derivatives, got a loss of nan for 6 images"):
        measure_importance("fisher", random_model(SHAPE), samples)


_THOUSAND = """
import resource, torch
from planner.network.data import Samples
from planner.network.vit import Shape, VisionTransformer, initialise
from planner.profiler.grouping import group_channels
from planner.profiler.importance import measure
from planner.profiler.importance_shares import normalised

torch.set_num_threads(1)
model = VisionTransformer(Shape(4, 2, 1, 1000, 16, 8, (2,) * 2, (1024,) * 2))
initialise(model, torch.Generator().manual_seed(0))
samples = Samples(torch.randn(1000, 1, 4, 4), torch.arange(1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
importance = measure("thinned", model, samples)
normalised(importance, group_channels(importance, 32))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_thousand_classes_need_little_memory():
    """Sums of 1,000 classes x 2 blocks x 1,024 channels are 16 MB; all of it together stays below 200."""
    done = subprocess.run(
        [sys.executable, "-c", _THOUSAND],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 200


def test_batches_are_small_enough_for_a_large_model():
    """A ViT-Base's batch keeps about a gibibyte, a tiny model's is as large as any."""
    base = Shape(224, 16, 3, 1000, 768, 64, (12,) * 12, (3072,) * 12)
    # By hand: 197 tokens x 4 bytes x 12 blocks x (10 x 768 + 4 x 3072) = 189 MB for each image.
    assert gradient_importance.gradient_batch_size(base) == 5
    assert gradient_importance.gradient_batch_size(SHAPE) == 128


def random_importance(seed, num_channels=12):
    """Return importances of 4 classes for 3 blocks of 2 heads and 6 embed dims, each class with a scale of its own."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 10, (4, 1, 1))
    heads, channels = (rng.exponential(size=(4, 3, size)) * scale for size in (2, num_channels))
    return UnitImportance(heads, channels, rng.exponential(size=(4, 6)) * scale[:, 0])


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
    """Channels that the same class needs go together, whatever its scale and wherever they are.

    Class 0 needs channels 0, 2 and 4, class 1 (which counts in hundreds) 1, 3 and 5; all need 6, 7 and 8 a little.
    """
    channels = np.array([[[9.0, 0, 8, 0, 9, 0, 1, 1, 1]], [[0, 700.0, 0, 800, 0, 800, 100, 100, 100]]])
    importance = UnitImportance(np.zeros((2, 1, 1)), channels, np.ones((2, 4)), exponent=1.0)
    assert sorted(group_channels(importance, 3)[0]) == [[0, 2, 4], [1, 3, 5], [6, 7, 8]]


def test_groups_keep_levels_apart():
    """Strong and weak channels of one need are not mixed: a group is worth keeping, or not, as a whole."""
    channels = np.array([[[1.0, 9, 1, 9, 1, 9, 1, 9]]])
    importance = UnitImportance(np.zeros((1, 1, 1)), channels, np.ones((1, 4)), exponent=1.0)
    assert group_channels(importance, 4) == [[[1, 3, 5, 7], [0, 2, 4, 6]]]


def test_harm_counts_against_a_group():
    """Channels of 5 and -2 are a group of 3, those of -3 and 1 have no share; a head of 7 has the rest of 10."""
    importance = UnitImportance(
        np.array([[[7.0]]]), np.array([[[5.0, -2, -3, 1]]]), np.array([[-1.0, 3]]), exponent=1.0
    )
    assert normalised(importance, [[[0, 1], [2, 3]]]) == ([[[0.7]]], [[[0.3, 0.0]]])
    assert embed_retention(importance, embed_order(importance), 1) == [1.0]


def test_a_class_that_nothing_helps_needs_all_alike():
    """Class 1's every unit does harm: a head and three groups have a quarter each, two dims a half."""
    heads, channels = np.array([[[1.0]], [[-1.0]]]), np.array([[[1.0, 1, 1]], [[-1.0, 0, -2]]])
    importance = UnitImportance(heads, channels, np.array([[3.0, 1], [-1, -1]]), exponent=1.0)
    groups = group_channels(importance, 1)
    of_heads, of_groups = normalised(importance, groups)
    assert (of_heads[1], of_groups[1]) == ([[0.25]], [[0.25] * 3])
    assert embed_retention(importance, embed_order(importance), 1)[1] == 0.5


@pytest.mark.parametrize(("hidden", "size"), [(256, 8), (512, 8), (513, 16), (768, 16), (1536, 32), (3072, 64), (5, 8)])
def test_a_block_has_at_most_64_groups(hidden, size):
    """The least of 8, 16, 32, ... that makes no more."""
    assert group_size(hidden) == size


def test_group_sizes_are_multiples_of_what_the_device_likes():
    """768 channels in at most 64 groups are 12 or more each: 16 for multiples of 4, 12 of 12, 32 of 32."""
    assert [group_size(768, multiple) for multiple in (4, 12, 16, 32)] == [16, 12, 16, 32]


@pytest.mark.parametrize("seed", range(3))
def test_shares_sum_to_one_for_each_class(seed):
    """All heads and groups together are 1 for each class, rounding made good, a smaller last group too."""
    importance = random_importance(seed)
    heads, groups = normalised(importance, group_channels(importance, 5))
    assert np.shape(heads) == (4, 3, 2)
    assert np.shape(groups) == (4, 3, 3)
    np.testing.assert_allclose(np.sum(heads, axis=(1, 2)) + np.sum(groups, axis=(1, 2)), 1, rtol=0, atol=1e-12)


def test_a_share_is_a_power_of_what_a_group_has():
    """A head of 9 and groups of 2 + 2 and 10 + 15: roots 3, 2, 5 of 10 together; as they are, 9, 4, 25 of 38."""
    head, channels = np.array([[[9.0]]]), np.array([[[10.0, 2, 15, 2]]])
    groups = [[[1, 3], [0, 2]]]
    roots = UnitImportance(head, channels, np.ones((1, 4)), exponent=0.5)
    assert normalised(roots, groups) == ([[[0.3]]], [[[0.2, 0.5]]])
    plain = UnitImportance(head, channels, np.ones((1, 4)), exponent=1.0)
    assert normalised(plain, groups) == ([[[0.2368421]]], [[[0.1052632, 0.6578947]]])


def test_the_scale_of_a_class_does_not_matter():
    """A class whose every importance is a thousand times as large has the same shares, groups and order."""
    importance = random_importance(0)
    larger = UnitImportance(importance.heads * 1000, importance.channels * 1000, importance.embed_dims * 1000)
    groups = group_channels(importance, 3)
    assert group_channels(larger, 3) == groups
    for got, expected in zip(normalised(larger, groups), normalised(importance, groups), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-7)
    assert embed_order(larger) == embed_order(importance)


def test_embed_dims_are_ordered_by_what_all_classes_need():
    """Class 0 needs 6, 3, 1 of 10, class 1 0, 400, 600 of 1,000: on average 0.3, 0.35 and 0.35."""
    importance = UnitImportance(
        np.ones((2, 1, 1)), np.ones((2, 1, 1)), np.array([[6.0, 3, 1], [0, 400, 600]]), exponent=1.0
    )
    order = embed_order(importance)
    assert order == [1, 2, 0]
    assert embed_retention(importance, order, 1) == [0.3, 0.4]
    assert embed_retention(importance, order, 2) == [0.4, 1.0]
    assert embed_retention(importance, order, 3) == [1.0, 1.0]


def test_embed_retention_is_rounded_down():
    """Two of three dims that are needed alike are 0.6666666, not 0.6666667."""
    importance = UnitImportance(np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.ones((1, 3)))
    assert embed_retention(importance, [0, 1, 2], 2) == [0.6666666]


@pytest.mark.parametrize("method", list(EXPONENTS))
def test_importance_of_a_real_network_is_a_share(samples, method):
    """What is measured of a network can be grouped and normalised: every number within 0 and 1."""
    importance = measure_importance(method, random_model(SHAPE), samples)
    heads, groups = normalised(importance, group_channels(importance, 2))
    assert np.shape(groups) == (3, 2, 3)
    for shares in (heads, groups, embed_retention(importance, embed_order(importance), 4)):
        assert np.min(shares) >= 0
        assert np.max(shares) <= 1
    np.testing.assert_allclose(np.sum(heads, axis=(1, 2)) + np.sum(groups, axis=(1, 2)), 1, rtol=0, atol=1e-12)
