"""A convolutional stem before the patches: counted, cut and exported like the rest.

The oracle is `plain_vit` on what the stem leaves of the images: the stem as plain arithmetic, then patches of one
smaller side.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from planner.network import audit, counts
from planner.network.counts import Counts
from planner.network.export import export_onnx
from planner.network.surgery import cut
from planner.network.vit import Shape, VisionTransformer, initialise
from tests.helpers.plain_vit import ones, plain_features, plain_logits, random_images, random_model

# 8 x 8 images, halved twice: patches of 4 are then single pixels of 5 channels.
SHAPE = Shape(8, 4, 2, 3, embed_dim=6, head_dim=2, num_heads=(2, 1), hidden_dim=(5, 3), stem_channels=(3, 5))
MODEL = random_model(SHAPE)
IMAGES = random_images(SHAPE, 3)


def without_stem(model: VisionTransformer, images: Tensor) -> tuple[VisionTransformer, Tensor]:
    """Return a network for the stem's output on images, and that output, in float64."""
    state = model.state_dict()
    left = images.double()
    for i in range(len(model.shape.stem_channels)):
        weight, bias = (state[f"patch_embed.stem.{i}.{what}"].double() for what in ("weight", "bias"))
        size = left.shape[-1] // 2
        padded = torch.nn.functional.pad(left, (1, 1, 1, 1))
        rows = []
        for y in range(size):
            for x in range(size):
                window = padded[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
                rows.append((window[:, None] * weight).sum((2, 3, 4)) + bias)
        left = torch.stack(rows, 2).reshape(len(images), -1, size, size)
        left = 0.5 * left * (1 + torch.erf(left / 2**0.5))
    halved = 2 ** len(model.shape.stem_channels)
    sizes = {"image_size": model.shape.image_size // halved, "patch_size": model.shape.patch_size // halved}
    bare = VisionTransformer(replace(model.shape, in_channels=left.shape[1], stem_channels=(), **sizes))
    bare.load_state_dict({name: tensor for name, tensor in state.items() if ".stem." not in name})
    return bare, left


@pytest.mark.parametrize("patch_size", [4, 8])
def test_patches_are_cut_of_the_stems_output(patch_size: int) -> None:
    """A network with a stem equals a plain ViT on the stem's output."""
    model = random_model(replace(SHAPE, patch_size=patch_size))
    bare, left = without_stem(model, IMAGES)
    expected = plain_logits(bare, left, *ones(SHAPE)).detach()
    torch.testing.assert_close(model.double()(IMAGES.double()).detach(), expected, rtol=1e-9, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.sets(st.integers(0, 1)), st.sets(st.integers(0, 0))),
    st.tuples(st.sets(st.integers(0, 4)), st.sets(st.integers(0, 2))),
    st.sets(st.integers(0, 5), min_size=1),
)
def test_cutting_behind_a_stem_equals_masking(
    heads: tuple[set[int], ...], channels: tuple[set[int], ...], dims: set[int]
) -> None:
    """Heads, channels and embed dims are removed as without a stem; the stem itself stays whole."""
    small = cut(MODEL, [list(block) for block in heads], [list(block) for block in channels], sorted(dims))
    bare, left = without_stem(MODEL, IMAGES)
    head_masks, channel_masks = (
        [torch.tensor([float(i in kept) for i in range(size)]).double() for kept, size in zip(*pair, strict=True)]
        for pair in ((heads, SHAPE.num_heads), (channels, SHAPE.hidden_dim))
    )
    kept = torch.tensor([float(i in dims) for i in range(SHAPE.embed_dim)]).double()
    got = small.double().features(IMAGES.double()).detach()
    expected = plain_features(bare, left, head_masks, channel_masks, kept)[:, sorted(dims)]
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    assert small.shape.stem_channels == SHAPE.stem_channels


@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        replace(SHAPE, patch_size=8, num_heads=(1, 0), hidden_dim=(0, 2)),
        replace(SHAPE, stem_channels=(4,)),
        Shape(32, 8, 3, 10, 96, 16, (6,) * 2, (384,) * 2, stem_channels=(24, 48)),
    ],
    ids=["small", "emptied halves", "one convolution", "of 32 pixels"],
)
def test_counters_agree_on_a_stem(shape: Shape) -> None:
    """fvcore and torch count what the closed form says."""
    assert audit.count(VisionTransformer(shape).eval()) == counts.exact(shape)


def test_a_stem_is_audited() -> None:
    """The fixed part includes the stem; heads and channels cost the same as without it."""
    fixed, head, channel = audit.audit(SHAPE)
    assert (fixed, head, channel) == (counts.fixed(SHAPE), counts.per_head(SHAPE), counts.per_channel(SHAPE))
    bare = replace(SHAPE, stem_channels=())
    assert (head, channel) == (counts.per_head(bare), counts.per_channel(bare))


def test_a_stem_counted_by_hand() -> None:
    """The counts of one pixel of two channels made from 2 x 2 pixels, by hand.

    N = 2 tokens, E = 3, hd = 2, C = 2, one head, one channel. Without a stem and with one pixel: 160 MACs, of which
    the patch has 3, and 84 parameters, of which it has 6. The stem: 9*1*2 = 18 MACs, 9*2 + 2 = 20 parameters; the
    patch behind it: 2*3 = 6 MACs, 2*3 + 3 = 9 parameters.
    """
    shape = Shape(2, 2, 1, 2, embed_dim=3, head_dim=2, num_heads=(1,), hidden_dim=(1,), stem_channels=(2,))
    assert counts.exact(shape) == Counts(macs=160 - 3 + 18 + 6, params=84 - 6 + 20 + 9)


def test_a_stem_is_exported(tmp_path: Path) -> None:
    """ONNX Runtime gives torch's features, also at another batch size than the example's."""
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    export_onnx(MODEL, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    got = session.run(["features"], {"images": IMAGES.numpy()})[0]
    expected = MODEL.features(IMAGES).detach().numpy()
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_fresh_stem_keeps_the_scale_of_activations() -> None:
    """With He initialisation, normal images keep a mean square of the order of one behind each layer."""
    model = VisionTransformer(Shape(32, 8, 3, 10, 96, 16, (), (), stem_channels=(24, 48)))
    initialise(model, torch.Generator().manual_seed(0))
    x = random_images(model.shape, 16)
    for convolution in model.patch_embed.stem:
        assert isinstance(convolution, torch.nn.Conv2d)
        assert convolution.bias is not None
        x = torch.nn.functional.gelu(convolution(x)).detach()
        assert 0.3 < x.square().mean() < 1.5
        assert not convolution.bias.any()
