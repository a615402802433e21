"""ViTs with register tokens, mean pooling and other activations, and CCTs, through all that is done with a network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.network.audit import audit, count
from planner.network.export import export_onnx
from planner.network.reconstruction import reconstruct
from planner.network.surgery import Selection, cut
from planner.network.vit import Shape, VisionTransformer
from planner.profiler.kl_importance import kl_divergences
from planner.schema.architecture import Activation
from tests.helpers.plain_vit import ones, plain_features, plain_logits, random_images, random_model

PLAIN = Shape(6, 2, 3, 4, embed_dim=8, head_dim=2, num_heads=(3, 3), hidden_dim=(5, 5))
CCT = replace(PLAIN, class_token=False, pooling="sequence", norm_between_halves=True, layer_norm_eps=1e-5)
VARIANTS = {
    "registers": replace(PLAIN, num_registers=3),
    "mean of normalised patches": replace(PLAIN, pooling="mean"),
    "norm behind the mean": replace(PLAIN, pooling="mean", norm_after_pooling=True, num_registers=2),
    "no class token": replace(PLAIN, pooling="mean", norm_after_pooling=True, class_token=False),
    "distilled with registers": replace(PLAIN, distilled=True, num_registers=1),
    "rectangles": replace(PLAIN, image_size=(6, 8), patch_size=(3, 2)),
    "norm before blocks": replace(PLAIN, norm_before_blocks=True),
    "GELU by tanh": replace(PLAIN, activation="gelu_tanh"),
    "quick GELU": replace(PLAIN, activation="quick_gelu"),
    "ReLU": replace(PLAIN, activation="relu"),
    "SiLU": replace(PLAIN, activation="silu", pooling="mean"),
    "SwiGLU": replace(PLAIN, gated_mlp=True, activation="silu"),
    "GLU": replace(PLAIN, gated_mlp=True, activation="sigmoid", num_registers=1),
    "LayerNorm of queries and keys": replace(PLAIN, qk_norm="layer_norm", head_dim=3),
    "RMSNorm of queries and keys": replace(PLAIN, qk_norm="rms_norm", head_dim=3, gated_mlp=True),
    "sequence pooling": replace(PLAIN, pooling="sequence", num_registers=1),
    "norm between halves": replace(PLAIN, norm_between_halves=True),
    "CVT": CCT,
    "CCT of one convolution": replace(CCT, stem_channels=(8,), stem_stride=1, stem_max_pool=True),
    "CCT of two": replace(
        CCT, image_size=(8, 16), patch_size=4, stem_channels=(3, 8), stem_stride=1, stem_max_pool=True, stem_kernel=5
    ),
    "CCT of stride 2": replace(CCT, image_size=16, patch_size=4, stem_channels=(8,), stem_max_pool=True, stem_kernel=7),
}
variants = pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS)
ACTIVATIONS: tuple[Activation, ...] = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "sigmoid")


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert that results in double precision are equal but for rounding."""
    torch.testing.assert_close(actual.double(), expected, rtol=1e-9, atol=1e-10)


@variants
def test_networks_equal_plain_arithmetic(shape: Shape) -> None:
    """Features and logits are those of matrix products written out."""
    model, images, masks = random_model(shape).double(), random_images(shape, 3).double(), ones(shape)
    close(model.features(images), plain_features(model, images, *masks))
    close(model(images), plain_logits(model, images, *masks))


@settings(deadline=None, max_examples=40)
@given(
    shape=st.builds(
        replace,
        st.sampled_from([replace(s, activation="gelu") for s in VARIANTS.values()]),
        activation=st.sampled_from(ACTIVATIONS),
    ),
    data=st.data(),
)
def test_surgery_equals_masking(shape: Shape, data: st.DataObject) -> None:
    """A network with units and embed dims cut away answers as the whole one with them masked."""
    model, images, (heads, channels) = random_model(shape).double(), random_images(shape, 2).double(), ones(shape)
    kept: list[list[list[int]]] = []
    for masks in (heads, channels):
        kept.append([])
        for mask in masks:
            some = data.draw(st.sets(st.integers(0, len(mask) - 1)))
            mask.copy_(torch.tensor([float(i in some) for i in range(len(mask))]))
            kept[-1].append(sorted(some))
    dims = sorted(data.draw(st.sets(st.integers(0, 7), min_size=2)))
    dim_mask = torch.tensor([float(i in dims) for i in range(8)], dtype=torch.float64)
    small = cut(model, kept[0], kept[1], dims)
    close(small(images), plain_logits(model, images, heads, channels, dim_mask))


@variants
def test_counts_are_audited(shape: Shape) -> None:
    """Closed form, fvcore and torch count the same, unit by unit."""
    uniform = replace(shape, num_heads=(2, 2), hidden_dim=(5, 5))
    fixed, head, channel = audit(uniform)
    total = count(VisionTransformer(uniform).eval())
    assert fixed + head * 4 + channel * 10 == total


@variants
def test_an_exported_graph_gives_the_same_features(shape: Shape, tmp_path: Path) -> None:
    """ONNX Runtime answers as torch."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model, images = random_model(shape), random_images(shape, 2)
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(features, model.features(images).numpy(), rtol=1e-3, atol=1e-4)


@variants
def test_importance_is_the_divergence_without_a_unit(shape: Shape) -> None:
    """ED-ViT's importance of each unit is the KL divergence of predictions with it masked, written out."""
    model, images = random_model(shape), random_images(shape, 2)

    def log_probabilities(masks: tuple[list[torch.Tensor], list[torch.Tensor]]) -> torch.Tensor:
        return plain_logits(model, images, *masks).log_softmax(-1)

    reference = log_probabilities(ones(shape))
    found = kl_divergences(model, images)
    for kind, of_units in enumerate((found.heads, found.channels)):
        for l in range(shape.depth):
            for unit in range((shape.num_heads, shape.hidden_dim)[kind][l]):
                masks = ones(shape)
                masks[kind][l][unit] = 0
                expected = (reference.exp() * (reference - log_probabilities(masks))).sum(-1)
                torch.testing.assert_close(of_units[:, l, unit].double(), expected, rtol=1e-3, atol=1e-5)


@variants
@pytest.mark.parametrize("width", [8, 6])
def test_recovery_brings_a_network_nearer(shape: Shape, width: int) -> None:
    """Where nothing is cut, recovery changes no answer; a narrower network answers more like the whole one."""
    model, images = random_model(shape, seed=3), random_images(shape, 64)
    selection = Selection.of([range(n) for n in shape.num_heads], [range(c) for c in shape.hidden_dim], range(width))
    sub_model = selection.cut(model)
    with torch.no_grad():
        whole = model(images)
        before = (sub_model(images) - whole).square().mean()
        reconstruct(sub_model, model, selection, images, ridge=0.0)
        recovered = sub_model(images)
    if width == shape.embed_dim:
        torch.testing.assert_close(recovered, whole, rtol=1e-3, atol=1e-3)
    else:
        assert (recovered - whole).square().mean() < before
