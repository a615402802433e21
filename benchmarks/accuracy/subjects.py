"""Whole models that are split: that of digits is shipped, the others are trained once and cached.

The cache is $PLANNER_CACHE, or vit-deployment-planner under the user's cache folder. Data sets are looked for in
$PLANNER_DATA, or in ../shared/data beside the repository; a subject without its data is left out.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.data_sets import data_folder
from planner.executor.train_whole import train_whole
from planner.network.checkpoint import find_card
from planner.schema import ModelCard, read_document, write_document

DIGITS, FASHION, CIFAR = "digits", "fashion-mnist", "cifar-10"

# The same for both models: 0.7 M parameters, 17 tokens.
_SIZES = {"embed_dim": 96, "depth": 6, "num_heads": 6, "head_dim": 16, "hidden_dim": 384}
_TRAINING = {"batch_size": 128, "weight_decay": 0.05, "label_smoothing": 0.05, "max_rotation_degrees": 0, "seed": 0}
_FASHION_CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def cache_folder() -> Path:
    """Return the cache folder, which lies outside of the repository so that it outlives a checkout."""
    if "PLANNER_CACHE" in os.environ:
        return Path(os.environ["PLANNER_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vit-deployment-planner"


def trained_card(subject: str, progress: Progress) -> Path | None:
    """Return the card of a whole model, trained now unless it is cached; None without its data set."""
    if subject == DIGITS:
        return find_card("digits-vit")
    source = data_folder()
    if source is None:
        return None
    path = cache_folder() / subject / "card.json"
    if not path.exists():
        write_document(path, ModelCard.model_validate(_CARDS[subject](source, path.parent)))
    if read_document(path, ModelCard).weights is None:
        train_whole(path, progress)
    return path


def _fashion(source: Path, folder: Path) -> dict[str, Any]:
    files = {
        f"{part}_{what}": str(source / "fashion-mnist" / f"{stem}-{what}-idx{dims}-ubyte.gz")
        for part, stem in (("train", "train"), ("test", "t10k"))
        for what, dims in (("images", 3), ("labels", 1))
    }
    return {
        "model": FASHION,
        "description": "A plain ViT: patches of 7x7.",
        "architecture": {"image_size": 28, "patch_size": 7, "in_channels": 1, **_SIZES},
        "classes": _FASHION_CLASSES,
        "data": {"source": "idx", **files},
        "preprocessing": {"mean": [0.286], "std": [0.353]},
        "training": {**_TRAINING, "epochs": 14, "learning_rate": 1.5e-3, "max_shift_pixels": 1, "mirror": True},
    }


def _cifar(source: Path, folder: Path) -> dict[str, Any]:
    packed = {"train": "cifar10_train_jpeg90.npz", "test": "cifar10_test_lossless.npz"}
    classes: list[str] = []
    for part, file in packed.items():
        images, labels, classes = _unpack(source / file)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{part}.npz", images=images, labels=labels)
    return {
        "model": CIFAR,
        "description": "A ViT with a convolutional stem: two 3x3 convolutions, then patches of 2x2 of what they leave.",
        "architecture": {"image_size": 32, "patch_size": 8, "in_channels": 3, "stem_channels": [24, 48], **_SIZES},
        "classes": classes,
        "data": {"source": "npz", "train": "train.npz", "test": "test.npz"},
        "preprocessing": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.243, 0.261]},
        "training": {**_TRAINING, "epochs": 24, "learning_rate": 1.5e-3, "max_shift_pixels": 3, "mirror": True},
    }


_CARDS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {FASHION: _fashion, CIFAR: _cifar}


def _unpack(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return images (B, H, W, ch), labels (B,) and class names of contact sheets."""
    from PIL import Image

    packed = np.load(path, allow_pickle=False)
    count, height, width, channels = (int(size) for size in packed["shape"])
    per_sheet, columns = int(packed["per_sheet"]), int(packed["cols"])
    tiles = []
    for sheet in range(-(-count // per_sheet)):
        pixels = np.asarray(Image.open(io.BytesIO(packed[f"sheet_{sheet:04d}"].tobytes())).convert("RGB"))
        rows = pixels.reshape(pixels.shape[0] // height, height, columns, width, channels)
        tiles.append(rows.swapaxes(1, 2).reshape(-1, height, width, channels)[: count - sheet * per_sheet])
        assert len(tiles[-1]) == min(per_sheet, count - sheet * per_sheet)
    return np.concatenate(tiles), packed["labels"].astype(np.int64), [str(name) for name in packed["class_names"]]
