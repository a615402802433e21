"""Checkpoints in every file format, and models imported from them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from planner.network.checkpoint import load_model
from planner.network.import_settings import ImportSettings
from planner.network.importing import import_checkpoint
from planner.network.vit import Shape, VisionTransformer
from planner.schema import ModelCard
from tests.helpers.plain_vit import State, ones, plain_logits, random_images

PLAIN = Shape(6, 2, 3, 5, embed_dim=12, head_dim=3, num_heads=(4, 4), hidden_dim=(7, 7))


DISTILLED = dataclasses.replace(PLAIN, distilled=True)


def write(path: Path, tensors: State, wrapper: str | None = None) -> Path:
    """Write tensors in the format of a path's suffix, in a dict of one key if a wrapper is given."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".npz":
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        np.savez(path, **arrays)
    else:
        torch.save(tensors if wrapper is None else {wrapper: tensors}, path)
    return path


def assert_same_logits(model: VisionTransformer, other: VisionTransformer) -> None:
    """Assert that two networks of the same shape give the same logits, bit for bit."""
    images = random_images(model.shape, 3)
    with torch.inference_mode():
        assert torch.equal(model(images), other(images))


def imported(
    tmp_path: Path, tensors: State, num_heads: int | None = 4, file: str = "a.pth", **options: Any
) -> ModelCard:
    """Import tensors from a file."""
    return import_with(write(tmp_path / file, tensors), tmp_path / "mine", num_heads, **options)


def import_with(source: Path, out: Path, num_heads: int | None = None, **settings: Any) -> ModelCard:
    """Import a checkpoint with these settings."""
    return import_checkpoint(source, out, ImportSettings(num_heads=num_heads, **settings))


def imported_logits(folder: Path, source: Path, images: Tensor, **options: Any) -> tuple[ModelCard, Tensor]:
    """Import a checkpoint; return its card and the logits of the model read back."""
    card = import_with(source, folder / "mine", options.pop("num_heads", 4), **options)
    with torch.inference_mode():
        return card, load_model(str(folder / "mine" / "card.json"))[1](images)


def expected_logits(model: VisionTransformer, images: Tensor) -> Tensor:
    """Return a network's logits by plain arithmetic."""
    return plain_logits(model, images, *ones(model.shape)).float()


def assert_logits_close(actual: Tensor, expected: Tensor) -> None:
    """Assert that logits are equal but for rounding."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
