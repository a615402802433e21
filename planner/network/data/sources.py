"""Readers of a card's data sources: stored pixels, and labels.

Legend: N images, H height, W width, ch channels.
"""

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from planner.array_files import MAX_ARRAY_BYTES, read_arrays
from planner.arrays import Ints
from planner.errors import InputError
from planner.files import open_file, read_up_to
from planner.image_files import not_installed
from planner.network.data.class_folders import labelled_files
from planner.network.data.clips import ClipArray, ClipFiles
from planner.network.data.pixels import ArrayPixels, FilePixels, Pixels
from planner.sample_files import IMAGE_FILES, SOUND_FILES, FileKind
from planner.schema import (
    AudioArrays,
    AudioFolders,
    IdxFiles,
    ImageFolders,
    ModelCard,
    NpzFiles,
    SklearnDigits,
    StoredPart,
)
from planner.spectrograms import FramePlan
from planner.units import format_bytes

_GZIP = b"\x1f\x8b"
_IDX_BYTES = 0x08
# Read behind the end of what a header states, to say how much is there.
_MANY_BYTES = 2**16


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
            return _folders(root, source, card, IMAGE_FILES, FilePixels)
        case AudioFolders():
            (root,) = source.paths_of(part)
            plan = FramePlan.of(source.spectrogram, card.architecture.image_sides)
            return _folders(root, source, card, SOUND_FILES, lambda files: ClipFiles(files, plan))
        case AudioArrays():
            (path,) = source.paths_of(part)
            return _clips(path, source, card)
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
    with open_file(path) as file:
        is_packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        try:
            unpacked: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_packed else file
            return _idx_array(path, unpacked, ndim)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise InputError(f"{path}: must be a whole file, got a damaged gzip file.") from None


def _idx_array(path: Path, file: IO[bytes], ndim: int) -> NDArray[np.uint8]:
    """Return the array behind a header, of which no more is unpacked than it states."""
    magic, start = bytes([0, 0, _IDX_BYTES, ndim]), 4 + 4 * ndim
    header = file.read(start)
    if header[:4] != magic:
        raise InputError(
            f"{path}: must be an IDX file of bytes in {ndim} dimensions, beginning with {magic.hex()}, "
            f"got {header[:4].hex() or 'nothing'}."
        )
    shape = tuple(int(size) for size in np.frombuffer(header[4:].ljust(4 * ndim, b"\0"), ">u4"))
    num_bytes, sizes = math.prod(shape), " x ".join(map(str, shape))
    if num_bytes > MAX_ARRAY_BYTES:
        raise InputError(f"{path}: must have at most {format_bytes(MAX_ARRAY_BYTES)}, got {sizes} bytes.")
    content = read_up_to(file, num_bytes)
    more = file.read(_MANY_BYTES)
    if len(header) < start or len(content) < num_bytes or more:
        got = f"at least {num_bytes + len(more)}" if len(more) == _MANY_BYTES else f"{len(content) + len(more)}"
        raise InputError(f"{path}: must have {sizes} bytes behind its header, got {got}.")
    return np.frombuffer(content, np.uint8).reshape(shape)


# --- npz ---


def _npz(path: Path, source: NpzFiles, num_classes: int) -> StoredImages:
    images, labels = _read_npz(path, source.images_key, source.labels_key)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{path}: {source.images_key!r} must be uint8, N x H x W or N x H x W x channels, "
            f"got {images.dtype} of shape {images.shape}."
        )
    return _pair(path, images if images.ndim == 4 else images[..., None], path, labels, num_classes)


def _clips(path: Path, source: AudioArrays, card: ModelCard) -> StoredImages:
    samples, labels = _read_npz(path, source.samples_key, source.labels_key)
    if samples.dtype not in (np.int16, np.float32) or samples.ndim != 2 or not samples.shape[1]:
        raise InputError(
            f"{path}: {source.samples_key!r} must be int16 or float32, N x T, got {samples.dtype} of shape "
            f"{samples.shape}."
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: {source.samples_key!r} must be finite numbers, got NaN or infinity.")
    plan = FramePlan.of(source.spectrogram, card.architecture.image_sides)
    where, checked = _checked_labels(path, len(samples), path, labels, len(card.classes))
    return StoredImages(where, ClipArray(path, samples, plan), checked)


def _read_npz(path: Path, first_key: str, labels_key: str) -> tuple[NDArray[Any], NDArray[np.integer]]:
    """Return an array and the labels beside it."""
    arrays = read_arrays(path, (first_key, labels_key))
    values, labels = arrays[first_key], arrays[labels_key]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: {labels_key!r} must be N integers, got {labels.dtype} of shape {labels.shape}.")
    return values, labels


def _pair(
    images_path: Path, images: NDArray[np.uint8], labels_path: Path, labels: NDArray[np.integer], num_classes: int
) -> StoredImages:
    """Return images (N, H, W, ch) with their labels (N,)."""
    where, checked = _checked_labels(images_path, len(images), labels_path, labels, num_classes)
    return StoredImages(where, ArrayPixels(images_path, images), checked)


def _checked_labels(
    images_path: Path, num_images: int, labels_path: Path, labels: NDArray[np.integer], num_classes: int
) -> tuple[str, Ints]:
    """Return the source of labels and the labels (N,), which must be as many as images, and indices of classes."""
    if num_images != len(labels):
        raise InputError(
            f"{labels_path}: must have a label for each image of {images_path.name}, "
            f"got {len(labels)} labels for {num_images} images."
        )
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        raise InputError(
            f"{labels_path}: labels must be from 0 to {num_classes - 1}, got {labels[outside[0]]} at {outside[0]}."
        )
    return str(labels_path), labels.astype(np.int64)


# --- folders ---


def _folders(
    root: Path,
    source: ImageFolders | AudioFolders,
    card: ModelCard,
    kind: FileKind,
    pixels_of: Callable[[tuple[Path, ...]], Pixels],
) -> StoredImages:
    files, labels = labelled_files(root, source, card, kind)
    return StoredImages(str(root), pixels_of(files), labels)
