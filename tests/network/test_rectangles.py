"""Images and patches of any height and width: surgery equals masking, ONNX Runtime answers as torch."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.network.export import export_onnx
from planner.network.surgery import cut
from planner.network.vit import Shape
from tests.helpers.plain_vit import plain_logits, random_images, random_model


@st.composite
def rectangles(draw: st.DrawFn) -> Shape:
    """Draw a ViT of two blocks for images and patches of any sides, with a stem or without, plain or a CCT."""
    (height, width), (rows, columns) = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    stem, is_cct = draw(st.sampled_from([(), (3,), (4, 3)])), draw(st.booleans())
    reduction = 2 ** len(stem)
    return Shape(
        image_size=(height * rows * reduction, width * columns * reduction),
        patch_size=(height * reduction, width * reduction),
        in_channels=draw(st.sampled_from([1, 3])),
        num_classes=4,
        embed_dim=6,
        head_dim=2,
        num_heads=(2, 2),
        hidden_dim=(3, 4),
        stem_channels=stem,
        stem_stride=1 if is_cct else 2,
        stem_max_pool=is_cct,
        norm_between_halves=is_cct,
        class_token=not is_cct,
        pooling="sequence" if is_cct else "class_token",
    )


def drawn_subset(data: st.DataObject, size: int, least: int = 0) -> list[int]:
    """Draw which of some units or dims are kept."""
    return sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=least)))


def mask(kept: list[int], size: int) -> torch.Tensor:
    """Return 1 for each of those that are kept."""
    return torch.tensor([float(i in kept) for i in range(size)], dtype=torch.float64)


@settings(deadline=None, max_examples=40)
@given(shape=rectangles(), data=st.data())
def test_surgery_equals_masking(shape: Shape, data: st.DataObject) -> None:
    """A network with units and embed dims cut away answers as the whole one with them masked."""
    heads, channels = ([drawn_subset(data, n) for n in sizes] for sizes in (shape.num_heads, shape.hidden_dim))
    dims = drawn_subset(data, shape.embed_dim, least=2)
    model, images = random_model(shape).double(), random_images(shape, 2).double()
    head_masks, channel_masks = (
        [mask(kept, size) for kept, size in zip(of_blocks, sizes, strict=True)]
        for of_blocks, sizes in ((heads, shape.num_heads), (channels, shape.hidden_dim))
    )
    expected = plain_logits(model, images, head_masks, channel_masks, mask(dims, shape.embed_dim))
    torch.testing.assert_close(cut(model, heads, channels, dims)(images), expected, rtol=1e-9, atol=1e-10)


@settings(deadline=None, max_examples=4, derandomize=True)
@given(shape=rectangles())
def test_an_exported_graph_answers_as_torch(shape: Shape) -> None:
    """Features of ONNX Runtime and of torch are the same."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model, images = random_model(shape), random_images(shape, 2)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, Path(folder, "model.onnx"))
        session = onnxruntime.InferenceSession(Path(folder, "model.onnx"), providers=["CPUExecutionProvider"])
        (features,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(features, model.features(images).numpy(), rtol=1e-3, atol=1e-4)
