"""Readers of a card's data sources: stored pixels, and labels.

Legend: N images, H height, W width, ch channels.
"""

import gzip
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from planner.arrays import Ints
from planner.errors import InputError
from planner.network.data.pixels import ArrayPixels, FilePixels, Pixels, not_installed
from planner.schema import IdxFiles, ImageFolders, ModelCard, NpzFiles, SklearnDigits, StoredPart, did_you_mean

_GZIP = b"\x1f\x8b"
_IDX_BYTES = 0x08
_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class StoredImages:
    """Pixels, their labels (N,), and the source to name in error messages."""

    where: str
    pixels: Pixels
    labels: Ints


def read(card: ModelCard, part: StoredPart) -> StoredImages:
    """Read a stored part of a card's data.

    Raises:
        InputError: If a file or folder is missing, damaged or not of its format, or does not go
            with the card's classes.
    """
    source = card.data
    match source:
        case SklearnDigits():
            return _digits()
        case IdxFiles():
            images, labels = source.paths_of(part)
            return _idx(images, labels, len(card.classes))
        case NpzFiles():
            (path,) = source.paths_of(part)
            return _npz(path, source, len(card.classes))
        case ImageFolders():
            (root,) = source.paths_of(part)
            return _folders(root, Path(source.train), card)
    raise InputError(
        f"model {card.model!r} has no data: its card must say where images are from, under `data` and `preprocessing`."
    )


def _digits() -> StoredImages:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise not_installed("data source 'sklearn-digits'", "scikit-learn") from None
    digits = load_digits()
    pixels = ArrayPixels("sklearn-digits", digits.images[..., None].astype(np.uint8))
    return StoredImages("sklearn-digits", pixels, digits.target.astype(np.int64))


# --- IDX ---


def _idx(images: Path, labels: Path, num_classes: int) -> StoredImages:
    array = _read_idx(images, 3)  # (N, H, W)
    return _pair(images, array[..., None], labels, _read_idx(labels, 1), num_classes)


def _read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Return the bytes of an IDX file in the shape that its header says.

    Source:
        Y. LeCun, C. Cortes and C. Burges, The MNIST database, "the IDX file format".
    """
    with _open(path) as file:
        content = file.read()
    if content[:2] == _GZIP:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file ({error}).") from None
    magic = bytes([0, 0, _IDX_BYTES, ndim])
    if content[:4] != magic:
        raise InputError(
            f"{path}: must be an IDX file of bytes in {ndim} dimensions, beginning with {magic.hex()}, "
            f"got {content[:4].hex() or 'nothing'}."
        )
    start = 4 + 4 * ndim
    shape = tuple(int(size) for size in np.frombuffer(content[4:start].ljust(4 * ndim, b"\0"), ">u4"))
    if len(content) - start != math.prod(shape):
        sizes = " x ".join(map(str, shape))
        raise InputError(f"{path}: must have {sizes} bytes behind its header, got {max(0, len(content) - start)}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


# --- npz ---


def _npz(path: Path, source: NpzFiles, num_classes: int) -> StoredImages:
    arrays = []
    try:
        # Opened here: numpy leaves a damaged archive open.
        with _open(path) as file, np.load(file, allow_pickle=False) as archive:
            for key in (source.images_key, source.labels_key):
                if key not in archive:
                    raise InputError(f"{path}: must hold {key!r}, got {', '.join(archive) or 'nothing'}.")
                arrays.append(np.asarray(archive[key]))
    # np.load of a lone array returns no context manager; an array of objects is a ValueError.
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: must be an .npz file of plain arrays ({error}).") from None
    images, labels = arrays
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{path}: {source.images_key!r} must be uint8, N x H x W or N x H x W x channels, "
            f"got {images.dtype} of shape {images.shape}."
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path}: {source.labels_key!r} must be N integers, got {labels.dtype} of shape {labels.shape}."
        )
    return _pair(path, images if images.ndim == 4 else images[..., None], path, labels, num_classes)


def _pair(
    images_path: Path, images: NDArray[np.uint8], labels_path: Path, labels: NDArray[np.integer], num_classes: int
) -> StoredImages:
    """Return images (N, H, W, ch) with their labels (N,), which must be as many, and indices of classes."""
    if len(images) != len(labels):
        raise InputError(
            f"{labels_path}: must have a label for each image of {images_path.name}, "
            f"got {len(labels)} labels for {len(images)} images."
        )
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        raise InputError(
            f"{labels_path}: labels must be from 0 to {num_classes - 1}, got {labels[outside[0]]} at {outside[0]}."
        )
    return StoredImages(str(labels_path), ArrayPixels(images_path, images), labels.astype(np.int64))


# --- folders ---


def _folders(root: Path, train: Path, card: ModelCard) -> StoredImages:
    names = _folder_names(train, _subfolders(train), card)
    files: list[Path] = []
    labels: list[int] = []
    for folder in _subfolders(root):
        if folder not in names:
            raise InputError(f"{root / folder}: must have a class's name{did_you_mean(folder, names) or '.'}")
        inside = sorted(path for path in (root / folder).iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
        files += inside
        labels += [names.index(folder)] * len(inside)
    return StoredImages(str(root), FilePixels(tuple(files)), np.array(labels, dtype=np.int64))


def _subfolders(root: Path) -> list[str]:
    if not root.is_dir():
        raise InputError(f"{root}: must be a folder of class folders, got {'a file' if root.exists() else 'nothing'}.")
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _folder_names(train: Path, folders: Sequence[str], card: ModelCard) -> Sequence[str]:
    """Return the folder of each class: that of its name or, where classes have only numbers, in sorted order."""
    if not card.classes_are_numbered or set(folders) <= set(card.classes):
        return card.classes
    if len(folders) != len(card.classes):
        raise InputError(f"{train}: must have a folder for each of {len(card.classes)} classes, got {len(folders)}.")
    return folders
