"""A made-up problem of many classes: images of one colour each, and a ViT with random weights that knows the colours.

Class c has a colour of its own; images are that colour with noise. The head layer of the random ViT is the nearest mean
of its features, in closed form, so that nothing need be trained.

Legend: C classes, E embed dim.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save

from planner.network.evaluation import apply_in_batches
from planner.network.vit import Shape, VisionTransformer, initialise
from planner.schema import ModelCard, write_document
from planner.schema.base import write_bytes

NUM_TEST_OF_EACH = 2
_SIDE = 32
_NOISE = 8


def write_images(folder: Path, num_classes: int, num_of_each: int, seed: int) -> None:
    """Write so many small images of each class, a folder for each."""
    rng = np.random.default_rng(seed)
    for c, colour in enumerate(_colours(num_classes)):
        of_class = folder / f"c{c:04}"
        of_class.mkdir(parents=True)
        for i in range(num_of_each):
            noise = rng.integers(-_NOISE, _NOISE + 1, (_SIDE, _SIDE, 3))
            Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(of_class / f"{i}.png")


def write_model(folder: Path, train: Path, test: Path, num_classes: int, depth: int) -> Path:
    """Write a ViT-Tiny of so many blocks for these images, and return its card."""
    shape = Shape(
        224, 16, 3, num_classes, embed_dim=192, head_dim=64, num_heads=(3,) * depth, hidden_dim=(768,) * depth
    )
    model = VisionTransformer(shape).eval()
    initialise(model, torch.Generator().manual_seed(0))
    flat = torch.from_numpy((_colours(num_classes) / 127.5 - 1).astype(np.float32))

    def features(of: torch.Tensor) -> torch.Tensor:
        return model.features(flat[of, :, None, None].expand(-1, -1, 224, 224))

    means = apply_in_batches(features, torch.arange(num_classes))
    with torch.no_grad():
        model.head.weight.copy_(2 * means)
        model.head.bias.copy_(-means.square().sum(1))
    content = save(model.state_dict())
    write_bytes(folder / "weights.safetensors", content)
    card = ModelCard.model_validate(
        {
            "model": "many-classes",
            "description": f"A ViT-Tiny of {depth} blocks with random weights that tells colours.",
            "architecture": {
                "image_size": 224,
                "patch_size": 16,
                "in_channels": 3,
                "embed_dim": 192,
                "depth": depth,
                "num_heads": 3,
                "head_dim": 64,
                "hidden_dim": 768,
            },
            "classes": [f"c{c:04}" for c in range(num_classes)],
            "data": {"source": "folder", "train": str(train), "test": str(test)},
            "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize": [224, 224]},
            "weights": "weights.safetensors",
            "weights_sha256": hashlib.sha256(content).hexdigest(),
        }
    )
    write_document(folder / "card.json", card)
    return folder / "card.json"


def _colours(count: int) -> NDArray[np.int64]:
    """Return so many colours, (C, 3), as far from each other as a grid allows."""
    steps = int(np.ceil(count ** (1 / 3) - 1e-9))
    levels = np.linspace(20, 235, steps).round().astype(np.int64)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)[:count]
