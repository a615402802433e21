"""Small images in every stored form a card can name: IDX files, npz arrays, folders of image files."""

import gzip
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from planner.network.checkpoint import load_card
from planner.schema import ModelCard
from tests.helpers.common import Json

Pixels = NDArray[np.uint8]

SIZE = 4
SPLIT = {"test_share": 0.5, "split_seed": 0}


def pixels(count: int, height: int = SIZE, width: int = SIZE, channels: int | None = None, seed: int = 0) -> Pixels:
    """Return random bytes (count, height, width) or (count, height, width, channels)."""
    size = (count, height, width) + (() if channels is None else (channels,))
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def idx(array: NDArray[Any], magic: bytes | None = None) -> bytes:
    """Return an IDX file: two zero bytes, type 8, the number of dimensions, the sizes, the bytes."""
    head = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return head + b"".join(struct.pack(">I", size) for size in array.shape) + array.astype(np.uint8).tobytes()


def card(
    folder: Path, source: Json, classes: int | list[str] = 2, channels: int = 1, preprocessing: Json | None = None
) -> ModelCard:
    """Write a card of small images in a folder and read it."""
    folder.mkdir(exist_ok=True)
    sizes = {"image_size": SIZE, "patch_size": 2, "embed_dim": 8, "depth": 1, "num_heads": 1, "head_dim": 8}
    fields = {
        "model": "m",
        "description": "",
        "architecture": sizes | {"in_channels": channels, "hidden_dim": 8},
        "classes": classes,
        "data": source,
        "preprocessing": preprocessing or {"scale": 1.0, "mean": [0.0] * channels, "std": [1.0] * channels},
    }
    (folder / "card.json").write_text(json.dumps(fields))
    return load_card(str(folder / "card.json"))


IDX = {"source": "idx", "train_images": "ti", "train_labels": "tl", "test_images": "ei", "test_labels": "el"}


def write_idx(folder: Path, changes: Mapping[str, bytes] | None = None, zipped: bool = False) -> tuple[Pixels, Pixels]:
    """Write both parts, 4 and 2 images of two classes, with some files changed; return the pixels."""
    train, test = pixels(4), pixels(2, seed=1)
    files = {"ti": idx(train), "tl": idx(np.array([0, 1, 1, 0])), "ei": idx(test), "el": idx(np.array([1, 0]))}
    for name, content in (files | dict(changes or {})).items():
        (folder / name).write_bytes(gzip.compress(content) if zipped else content)
    return train, test


NPZ = {"source": "npz", "train": "train.npz", "test": "test.npz"}


def write_npz(
    folder: Path, images: NDArray[Any], labels: NDArray[Any], keys: tuple[str, str] = ("images", "labels")
) -> None:
    """Write a training part as an npz file."""
    arrays: dict[str, Any] = dict(zip(keys, (images, labels), strict=True))
    np.savez(folder / "train.npz", **arrays)


FOLDERS = {"source": "folder", "train": "train", "test": "test"}


def write_folders(root: Path, classes: list[str], part: str = "train", per_class: int = 2, mode: str = "L") -> None:
    """Write plain grey images for each class: level 10 for the first, 20 for the second and so on."""
    for i, name in enumerate(classes):
        (root / part / name).mkdir(parents=True)
        for j in range(per_class):
            Image.new(mode, (SIZE, SIZE), 10 * (i + 1)).save(root / part / name / f"{j}.png")
