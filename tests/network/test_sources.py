"""Data sources: stored images and labels are read, and damaged files are refused in one sentence."""

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from planner.errors import InputError
from planner.network import data
from planner.network.checkpoint import load_card
from tests.helpers.common import Json
from tests.helpers.image_files import IDX, NPZ, SPLIT, card, idx, pixels, write_folders, write_idx, write_npz
from tests.helpers.refusals import assert_sentence

# IDX


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read(tmp_path: Path, zipped: bool) -> None:
    """Both parts are read with their labels, gzipped or not, relative to the card's folder."""
    train, test = write_idx(tmp_path, zipped=zipped)
    read = card(tmp_path, IDX)
    got = data.load(read, "train")
    assert torch.equal(got.tensor()[:, 0], torch.from_numpy(train).float())
    assert got.labels.tolist() == [0, 1, 1, 0]
    got = data.load_stored_test(read)
    assert torch.equal(got.tensor()[:, 0], torch.from_numpy(test).float())
    assert got.labels.tolist() == [1, 0]


def test_a_test_part_is_split_off(tmp_path: Path) -> None:
    """When only a training part is stored, half of each class becomes the test part, without overlap."""
    train, _ = write_idx(tmp_path)
    read = card(tmp_path, {key: IDX[key] for key in ("source", "train_images", "train_labels")} | SPLIT)
    parts = [data.load(read, "train"), data.load_stored_test(read)]
    assert [sorted(part.labels.tolist()) for part in parts] == [[0, 1], [0, 1]]
    both = torch.cat([part.tensor() for part in parts])[:, 0].numpy().tolist()
    assert sorted(both) == sorted(train.astype(float).tolist())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ti", idx(pixels(4), magic=bytes([0, 0, 8, 1])), "must be an IDX file.*beginning with 00000803, got 00000801"),
        ("tl", idx(np.zeros(4), magic=bytes([0, 0, 13, 1])), "beginning with 00000801, got 00000d01"),
        ("ti", b"", "got nothing"),
        ("ti", b"\0\0\x08\x03\0\0", "must have 0 x 0 x 0 bytes behind its header, got 0"),
        ("ti", idx(pixels(4))[:-1], "must have 4 x 4 x 4 bytes behind its header, got 63"),
        ("ti", idx(pixels(4)) + b"x", "must have 4 x 4 x 4 bytes behind its header, got 65"),
        ("ti", gzip.compress(idx(pixels(4)), mtime=0)[:-9], "damaged gzip file"),
        ("ti", b"\x1f\x8bno gzip", "damaged gzip file"),
        ("tl", idx(np.array([0, 1])), "must have a label for each image of ti, got 2 labels for 4 images"),
        ("tl", idx(np.array([0, 1, 2, 0])), "labels must be from 0 to 1, got 2 at 2"),
        ("tl", idx(np.array([1, 1, 1, 1])), "class '0' must have training images, got none"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A wrong magic number, a wrong size and wrong labels are refused with the file and the numbers."""
    write_idx(tmp_path, {name: content})
    with pytest.raises(InputError, match=message) as error:
        data.load(card(tmp_path, IDX), "train")
    assert_sentence(error, tmp_path / name)


def test_missing_idx_files_are_refused(tmp_path: Path) -> None:
    """A missing file is named with its path."""
    with pytest.raises(InputError, match=r"ti: no such file\.") as error:
        data.load(card(tmp_path, IDX), "train")
    assert_sentence(error, tmp_path / "ti")


def test_a_class_may_be_missing_in_a_test_part(tmp_path: Path) -> None:
    """Only the training part needs every class, but a test part needs an image."""
    write_idx(tmp_path, {"el": idx(np.array([1, 1]))})
    assert data.load_stored_test(card(tmp_path, IDX)).labels.tolist() == [1, 1]
    write_idx(tmp_path, {"ei": idx(pixels(0)), "el": idx(np.array([]))})
    with pytest.raises(InputError, match="el: must have at least one image"):
        data.load_stored_test(card(tmp_path, IDX))


# npz


def test_npz_arrays_are_read(tmp_path: Path) -> None:
    """Colour images become channels first; keys may have other names."""
    images = pixels(3, channels=3)
    write_npz(tmp_path, images, np.array([1, 0, 1]), ("x", "y"))
    read = card(tmp_path, NPZ | {"images_key": "x", "labels_key": "y"}, channels=3)
    got = data.load(read, "train")
    assert torch.equal(got.tensor(), torch.from_numpy(images).float().permute(0, 3, 1, 2))
    assert got.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "keys", "message"),
    [
        (pixels(2), [0, 1], ("pixels", "labels"), "must hold 'images', got pixels, labels"),
        (pixels(2), [0, 1], ("images", "y"), "must hold 'labels', got images, y"),
        (pixels(2).astype(float), [0, 1], None, "'images' must be uint8.*got float64 of shape"),
        (pixels(2)[0], [0, 1], None, r"'images' must be uint8, N x H x W.*got uint8 of shape \(4, 4\)"),
        (pixels(2), [0.0, 1.0], None, "'labels' must be N integers, got float64"),
        (pixels(2), [[0], [1]], None, r"'labels' must be N integers, got int64 of shape \(2, 1\)"),
        (pixels(2), [0, 1, 1], None, "must have a label for each image of train.npz, got 3 labels for 2 images"),
        (pixels(2), [0, -1], None, "labels must be from 0 to 1, got -1 at 1"),
        (pixels(2), [0, 0], None, "class '1' must have training images"),
        (pixels(2, 5, 5), [0, 1], None, "images must be 4 x 4 pixels, got 5 x 5; .*resize"),
        (pixels(2, channels=2), [0, 1], None, "images must have 1 channels.*got 2"),
        (np.array([None, None]), [0, 1], None, r"must be an \.npz file of plain arrays"),
    ],
)
def test_other_arrays_are_refused(
    tmp_path: Path, images: NDArray[Any], labels: list[Any], keys: tuple[str, str] | None, message: str
) -> None:
    """A wrong key, type, shape or size is refused with the file and the numbers; objects are never unpickled."""
    write_npz(tmp_path, images, np.array(labels), keys or ("images", "labels"))
    with pytest.raises(InputError, match=message) as error:
        data.load(card(tmp_path, NPZ), "train")
    assert_sentence(error, tmp_path / "train.npz")


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 no archive"])
def test_a_file_that_is_not_npz_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or damaged file is named."""
    if content is not None:
        (tmp_path / "train.npz").write_bytes(content)
    message = r"no such file\." if content is None else r"must be an \.npz file"
    with pytest.raises(InputError, match=message) as error:
        data.load(card(tmp_path, NPZ), "train")
    assert_sentence(error, tmp_path / "train.npz")


# Folders


# Preprocessing


# Some of the images


# What is missing


def test_a_card_without_data_says_what_to_add() -> None:
    """A shipped card without data has no images, and the message says which keys to add."""
    with pytest.raises(InputError, match=r"'deit_tiny_patch16_224' has no data.*`data` and `preprocessing`"):
        data.load(load_card("deit_tiny_patch16_224"), "train")


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("PIL", {"source": "folder", "train": "train"} | SPLIT, "data source 'folder' needs Pillow"),
        ("sklearn.model_selection", {"source": "npz", "train": "train.npz"} | SPLIT, "test part needs scikit-learn"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: Json, message: str
) -> None:
    """The message names the extra that installs the package."""
    write_folders(tmp_path, ["0", "1"])
    write_npz(tmp_path, pixels(4), np.array([0, 0, 1, 1]))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"{message}.*vit-planner\[data\]"):
        data.load(card(tmp_path, source), "train")
