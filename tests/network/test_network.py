"""The network against plain arithmetic."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from planner.network.evaluation import accuracy_by_class, apply_in_batches, top1_accuracy
from planner.network.half_blocks import Attention
from planner.network.vit import Shape, VisionTransformer, initialise
from tests.helpers.plain_vit import generator, ones, plain_features, plain_logits, random_images, random_model

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 0, 1), hidden_dim=(5, 3, 0))


# The network


def test_parameter_names_are_timms() -> None:
    """A checkpoint of timm's VisionTransformer of depth 1 has exactly these names."""
    model = VisionTransformer(Shape(4, 2, 1, 3, 8, 4, (2,), (5,)))
    assert sorted(model.state_dict()) == [
        "blocks.0.attn.proj.bias",
        "blocks.0.attn.proj.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.0.attn.qkv.weight",
        "blocks.0.mlp.fc1.bias",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.bias",
        "blocks.0.mlp.fc2.weight",
        "blocks.0.norm1.bias",
        "blocks.0.norm1.weight",
        "blocks.0.norm2.bias",
        "blocks.0.norm2.weight",
        "cls_token",
        "head.bias",
        "head.weight",
        "norm.bias",
        "norm.weight",
        "patch_embed.proj.bias",
        "patch_embed.proj.weight",
        "pos_embed",
    ]


def test_parameter_shapes_are_timms() -> None:
    """Tensors of a timm checkpoint fit: patch convolution, Q, K and V in one layer, positions with the class token."""
    state = VisionTransformer(Shape(224, 16, 3, 1000, 192, 64, (3,), (768,))).state_dict()
    assert state["patch_embed.proj.weight"].shape == (192, 3, 16, 16)
    assert state["cls_token"].shape == (1, 1, 192)
    assert state["pos_embed"].shape == (1, 197, 192)
    assert state["blocks.0.attn.qkv.weight"].shape == (576, 192)
    assert state["blocks.0.attn.proj.weight"].shape == (192, 192)
    assert state["blocks.0.mlp.fc1.weight"].shape == (768, 192)
    assert state["blocks.0.mlp.fc2.weight"].shape == (192, 768)
    assert state["head.weight"].shape == (1000, 192)


def test_an_empty_half_has_no_parameters() -> None:
    """A block without heads has no attention tensors and no first norm, one without channels no MLP tensors."""
    names = VisionTransformer(SHAPE).state_dict()
    assert not [name for name in names if name.startswith(("blocks.1.attn", "blocks.1.norm1"))]
    assert not [name for name in names if name.startswith(("blocks.2.mlp", "blocks.2.norm2"))]


def test_network_equals_plain_arithmetic() -> None:
    """Features and logits are those of a forward pass written out with matrix products alone."""
    model, images = random_model(SHAPE).double(), random_images(SHAPE, 3).double()
    masks = ones(SHAPE)
    torch.testing.assert_close(model.features(images), plain_features(model, images, *masks), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model(images), plain_logits(model, images, *masks), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 1), (3, 4), (4, 16)])
def test_fused_attention_equals_plain(heads: int, head_dim: int) -> None:
    """An attention module gives the softmax of Q K^T / sqrt(hd) times V, projected, one head after the other."""
    E, N = 10, 7
    attention = Attention(E, heads, head_dim).double()
    x = torch.randn(2, N, E, generator=generator(), dtype=torch.float64)
    expected = attention.proj.bias.expand(2, N, E)
    for h in range(heads):
        rows = torch.arange(h * head_dim, (h + 1) * head_dim)
        weights, biases = attention.qkv.weight, attention.qkv.bias
        q, k, v = (x @ weights[at].T + biases[at] for at in (rows + part * heads * head_dim for part in range(3)))
        weight = (q @ k.transpose(1, 2) / math.sqrt(head_dim)).softmax(-1)  # (B, N, N)
        expected = expected + weight @ v @ attention.proj.weight[:, rows].T
    torch.testing.assert_close(attention(x), expected, rtol=1e-10, atol=1e-11)


def test_the_fused_kernel_equals_the_unfused_one() -> None:
    """Torch's fused kernel and its plain one give the same logits in float32, to 1e-5 of their scale."""
    model, images = random_model(SHAPE), random_images(SHAPE, 3)
    with torch.no_grad():
        fused = model(images)
        with sdpa_kernel([SDPBackend.MATH]):
            plain = model(images)
    assert (fused - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_a_network_without_heads_and_channels_runs() -> None:
    """With every half empty the class token never sees the image: all images get the same finite logits."""
    shape = Shape(4, 2, 1, 3, 8, 4, (0, 0), (0, 0))
    model = random_model(shape)
    logits = model(random_images(shape, 5))
    assert logits.shape == (5, 3)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, logits[:1].expand(5, -1))
    assert not [name for name in model.state_dict() if name.startswith("blocks.")]


def test_gates_multiply_the_output_of_their_unit() -> None:
    """A gate multiplies the output of its head or channel, separately for each image."""
    shape = Shape(4, 2, 1, 3, 8, 4, (2, 1), (3, 2))
    model, images = random_model(shape).double(), random_images(shape, 2).double()
    draws = [
        (torch.rand(2, h, generator=generator(h)), torch.rand(2, c, generator=generator(c)))
        for h, c in zip(shape.num_heads, shape.hidden_dim, strict=True)
    ]
    gates = [(heads.double(), channels.double()) for heads, channels in draws]
    got = model(images, gates)
    for b in range(2):
        masks = [heads[b] for heads, _ in gates], [channels[b] for _, channels in gates]
        torch.testing.assert_close(
            got[b : b + 1], plain_logits(model, images[b : b + 1], *masks), rtol=1e-9, atol=1e-10
        )


def test_fresh_weights_depend_on_the_seed() -> None:
    """The same seed draws the same weights, another seed others; biases are zero and norms the identity."""
    first, same, other = VisionTransformer(SHAPE), VisionTransformer(SHAPE), VisionTransformer(SHAPE)
    for model, seed in ((first, 0), (same, 0), (other, 1)):
        initialise(model, generator(seed))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not first.head.bias.any()
    assert torch.equal(first.norm.weight, torch.ones(8))
    assert first.cls_token.any()


# Answers and accuracies


def test_batches_do_not_matter() -> None:
    """Results over several batches equal those of one, without gradients but usable in a training."""
    weight = torch.ones(2, 3, requires_grad=True)
    values = apply_in_batches(lambda images: images @ weight, torch.arange(1400.0).view(700, 2))
    assert torch.equal(values, torch.arange(1400.0).view(700, 2) @ weight)
    assert not values.requires_grad
    (values * weight.sum()).sum().backward()


def test_shares_of_correct_predictions() -> None:
    """Of predictions 0, 1, 1, 1 for labels 0, 0, 1, 1, three are correct: half of class 0, all of class 1."""
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [-2.0, -1.0], [0.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert top1_accuracy(logits, labels) == 0.75
    assert accuracy_by_class(logits, labels) == [0.5, 1.0]
