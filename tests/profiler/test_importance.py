"""Importance against slow oracles: one image and one unit at a time, in plain arithmetic."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from planner.arrays import Floats
from planner.network.data import Samples
from planner.network.surgery import cut
from planner.network.vit import Shape, VisionTransformer
from planner.profiler import gradient_importance, kl_importance
from planner.profiler.importance import EXPONENTS, ImportanceMethod, measure_importance
from tests.helpers.importance import LABELS, PART_SIZES, PARTS, SHAPE
from tests.helpers.plain_vit import attention_of, mlp_of, ones, plain_logits, random_images, random_model

# Multipliers of each head and each channel, block by block, and of each embed dim.
Gates = tuple[list[Tensor], list[Tensor], Tensor]


def with_written_dims(model: VisionTransformer, factors: Tensor) -> VisionTransformer:
    """Return a float64 model whose writes to the residual stream are multiplied by a factor for each embed dim.

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


def loss_with(
    model: VisionTransformer,
    image: Tensor,
    label: Tensor,
    head_gates: list[Tensor],
    channel_gates: list[Tensor],
    dim_gates: Tensor,
) -> float:
    """Return an image's loss with a multiplier for each unit."""
    scaled = with_written_dims(model, dim_gates)
    return F.cross_entropy(plain_logits(scaled, image[None], head_gates, channel_gates), label[None]).item()


def vector(gates: Gates, part: int, index: tuple[int, ...]) -> Tensor:
    """Return the gates of one block's heads or channels, or of all embed dims."""
    heads, channels, dims = gates
    return dims if part == 2 else (heads, channels)[part][index[0]]


def derivatives(model: VisionTransformer, image: Tensor, label: Tensor, at: Gates) -> list[Floats]:
    """Return an image's loss derivatives by all gates (heads, channels, embed dims), by central differences."""
    step, found = 1e-5, [np.zeros(size) for size in PART_SIZES]
    for part, values in enumerate(found):
        for index in np.ndindex(values.shape):
            losses = []
            for sign in (1, -1):
                moved = copy.deepcopy(at)
                vector(moved, part, index)[index[-1]] += sign * step
                losses.append(loss_with(model, image, label, *moved))
            values[index] = (losses[0] - losses[1]) / (2 * step)
    return found


def all_open() -> Gates:
    """Return gates of 1 for every head, channel and embed dim."""
    return *ones(SHAPE), torch.ones(8, dtype=torch.float64)


@pytest.mark.parametrize(("method", "of"), [("fisher", np.square), ("taylor", np.abs)])
def test_derivatives_equal_one_gate_at_a_time(
    samples: Samples, method: ImportanceMethod, of: Callable[[Floats], Floats]
) -> None:
    """The importance for a class is the mean share of squares, or of absolute values, over its images."""
    model = random_model(SHAPE)
    expected = [np.zeros((3, *size)) for size in PART_SIZES]
    for image, label in zip(samples.tensor(), LABELS, strict=True):
        heads, channels, dims = (of(values) for values in derivatives(model, image, label, all_open()))
        weight = 1 / (label == LABELS).sum().item()
        units = heads.sum() + channels.sum()
        for sums, share in zip(expected, (heads / units, channels / units, dims / dims.sum()), strict=True):
            sums[label] += weight * share
    got = measure_importance(method, model, samples)
    for part, values in zip(PARTS, expected, strict=True):
        np.testing.assert_allclose(getattr(got, part), values, rtol=1e-3, atol=1e-6)


def test_thinned_networks_equal_one_gate_at_a_time(samples: Samples) -> None:
    """With a quarter of the gates closed, loss increases are the negative derivatives, and shares those of squares."""
    model = random_model(SHAPE)
    rises, squares = (
        of(model, samples.tensor()[:2], LABELS[:2], torch.Generator().manual_seed(5))
        for of in (gradient_importance.loss_increases, gradient_importance.thinned_squared_gradients)
    )
    generator = torch.Generator().manual_seed(5)
    # A head and a channel mask for each block, then one for the embed dims; never quite 0, at which the oracle would
    # take a whole half, bias and all.
    drawn = [(torch.rand(2, size, generator=generator) < 0.75).double().clamp_min(1e-12) for size in (2, 5, 2, 5, 8)]
    assert 0 < sum(mask.sum() for mask in drawn) < 44
    for i in range(2):
        at = ([drawn[0][i], drawn[2][i]], [drawn[1][i], drawn[3][i]], drawn[4][i])
        heads, channels, dims = derivatives(model, samples.tensor()[i], LABELS[i], at)
        units = (heads**2).sum() + (channels**2).sum()
        for part, values, total in zip(PARTS, (heads, channels, dims), (units, units, (dims**2).sum()), strict=True):
            np.testing.assert_allclose(getattr(rises, part)[i], -values, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(getattr(squares, part)[i], values**2 / total, rtol=1e-3, atol=1e-6)


def test_shapley_is_the_mean_of_loss_increases(samples: Samples) -> None:
    """The importance is the mean over a class's images, negative where a unit does harm."""
    model = random_model(SHAPE)
    rises = gradient_importance.loss_increases(
        model, samples.tensor(), LABELS, torch.Generator().manual_seed(7 * 1_000_003)
    )
    got = measure_importance("shapley", model, samples, seed=7)
    for part in PARTS:
        mean = torch.stack([getattr(rises, part)[c == LABELS].mean(0) for c in range(3)])
        np.testing.assert_allclose(getattr(got, part), mean, rtol=1e-9)


def test_kl_equals_masking(samples: Samples) -> None:
    """The importance is the KL divergence from the output of a network without the unit."""
    model = random_model(SHAPE)

    def log_answer(heads: list[Tensor], channels: list[Tensor], dims: Tensor) -> Tensor:
        return plain_logits(model, samples.tensor(), heads, channels, dims).log_softmax(1)

    whole = log_answer(*all_open())
    got = measure_importance("kl", model, samples)
    for part, size in enumerate(PART_SIZES):
        for index in np.ndindex(size):
            masks = all_open()
            vector(masks, part, index)[index[-1]] = 0
            divergence = F.kl_div(log_answer(*masks), whole, reduction="none", log_target=True).sum(1)
            for c in range(3):
                expected = divergence[c == LABELS].mean().item()
                assert getattr(got, PARTS[part])[c][index] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_kl_takes_a_few_images_of_each_class() -> None:
    """Of classes with 20 and 3 images, 8 and 3 are drawn; another seed draws others."""
    labels = torch.tensor([0] * 20 + [1] * 3)
    drawn = kl_importance.sample_images(Samples(torch.zeros(23, 1), labels), seed=0)
    assert torch.bincount(labels[drawn]).tolist() == [8, 3]
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert drawn.tolist() != kl_importance.sample_images(Samples(torch.zeros(23, 1), labels), seed=1).tolist()


def squared_norm(model: VisionTransformer) -> float:
    """Return the squared norm of a network's matrices."""
    return sum(
        (p.double() ** 2).sum().item() for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1
    )


def test_magnitude_is_the_norm_that_a_cut_takes(samples: Samples) -> None:
    """The importance is the squared norm that the matrices lose when the unit is cut, for every class."""
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


def test_a_distilled_model_is_measured_too() -> None:
    """A distilled model, with two prefix tokens and two head layers, can be measured by every method."""
    shape = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(2, 2), hidden_dim=(5, 5), distilled=True)
    samples = Samples(random_images(shape, 6), LABELS)
    for method in EXPONENTS:
        got = measure_importance(method, random_model(shape), samples)
        assert [getattr(got, part).shape for part in PARTS] == [(3, *size) for size in PART_SIZES]
        assert got.embed_dims.any(axis=1).all()


def test_batches_do_not_matter(samples: Samples) -> None:
    """Repeating the images fifty times, over several batches, changes nothing."""
    model = random_model(SHAPE)
    once, often = (measure_importance("fisher", model, s) for s in (samples, samples.take(torch.arange(300) % 6)))
    for part in PARTS:
        np.testing.assert_allclose(getattr(often, part), getattr(once, part), rtol=1e-4, atol=1e-9)


def test_the_order_of_the_images_does_not_matter(samples: Samples) -> None:
    """The same images in reverse order give the same importance."""
    model = random_model(SHAPE)
    forwards, backwards = (
        measure_importance("fisher", model, s) for s in (samples, samples.take(torch.arange(5, -1, -1)))
    )
    for part in PARTS:
        np.testing.assert_allclose(getattr(backwards, part), getattr(forwards, part), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("method", ["thinned", "shapley", "fisher", "taylor", "kl"])
def test_a_unit_without_output_has_no_importance(samples: Samples, method: ImportanceMethod) -> None:
    """A head and a channel with output weights of zero have importance zero for every class."""
    model = random_model(SHAPE)
    with torch.no_grad():
        attention_of(model, 0).proj.weight[:, 4:8] = 0  # head 1
        mlp_of(model, 1).fc2.weight[:, 3] = 0
    importance = measure_importance(method, model, samples)
    assert importance.heads[:, 0, 1] == pytest.approx(np.zeros(3), abs=1e-9)
    assert importance.channels[:, 1, 3] == pytest.approx(np.zeros(3), abs=1e-9)
    assert abs(importance.heads[:, 0, 0]).max() > 1e-6
