"""Images decoded on demand, and parts of a data set: some of each class, folds, splits."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from planner import files, image_files
from planner.errors import InputError
from planner.network import data
from planner.network.data import LazyImages
from tests.helpers.image_files import FOLDERS, NPZ, SIZE, SPLIT, card, pixels, write_folders, write_npz


def test_at_most_so_many_of_each_class(tmp_path: Path) -> None:
    """At most two images of each class are drawn, the same every time and in the order of the whole part."""
    images, labels = pixels(30), np.array([0] * 20 + [1] * 9 + [2])
    write_npz(tmp_path, images, labels)
    read = card(tmp_path, NPZ, 3)
    some, again = data.load(read, "train", max_per_class=2), data.load(read, "train", max_per_class=2)
    assert torch.equal(some.tensor(), again.tensor())
    assert some.labels.tolist() == [0, 0, 1, 1, 2]
    stored = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    drawn = [image.numpy().astype(np.uint8).tobytes() for image in some.tensor()[:, 0]]
    assert [stored[image] for image in drawn] == some.labels.tolist()
    assert len(set(drawn)) == 5
    assert drawn[:2] != [images[0].tobytes(), images[1].tobytes()]
    assert len(data.load(read, "train", max_per_class=100)) == 30


def test_images_are_decoded_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch opens only its own files, also in a part of a part."""
    write_folders(tmp_path, ["cat", "dog"], per_class=5)
    got = data.load(card(tmp_path, FOLDERS, ["cat", "dog"]), "train")
    opened: list[str] = []
    original = files.open_file

    def counting_open(path: Path) -> AbstractContextManager[BinaryIO]:
        opened.append(path.name)
        return original(path)

    monkeypatch.setattr(image_files, "open_file", counting_open)
    part = got.take(torch.tensor([8, 1, 3]))
    assert isinstance(part.images, LazyImages)
    assert opened == []
    assert part.images[torch.tensor([0, 1])].shape == (2, 1, SIZE, SIZE)
    assert opened == ["3.png", "1.png"]
    assert part.labels.tolist() == [1, 0, 0]
    assert part.images.shape == (3, 1, SIZE, SIZE)


def test_lazy_images_are_indexed_as_tensors_are(tmp_path: Path) -> None:
    """Slices, index lists, masks, single indices and iteration give what a tensor would give."""
    write_npz(tmp_path, pixels(6), np.array([0, 1, 0, 1, 0, 1]))
    images = data.load(card(tmp_path, NPZ), "train").images
    assert isinstance(images, LazyImages)
    plain = images[:]
    mask = torch.tensor([True, False, True, False, False, True])
    for index in (slice(1, 5, 2), torch.tensor([5, 0, 5]), torch.tensor([[0, 1], [2, 3]]), mask, 4, -1):
        assert torch.equal(images[index], plain[index])
    assert torch.equal(torch.stack(list(cast("Iterable[Tensor]", images))), plain)
    with pytest.raises(IndexError):
        images[6]


def test_folds_of_lazy_images(tmp_path: Path) -> None:
    """Both parts of a fold stay lazy, and together they are all images."""
    write_npz(tmp_path, pixels(8), np.array([0, 1] * 4))
    samples = data.load(card(tmp_path, NPZ), "train")
    training, hold_out = data.fold(samples, 0, 2, seed=0)
    both = torch.cat([training.tensor(), hold_out.tensor()]).flatten(1)
    assert sorted(both.tolist()) == sorted(samples.tensor().flatten(1).tolist())
    assert isinstance(hold_out.images, LazyImages)


def test_a_split_that_leaves_a_class_without_images_is_refused(tmp_path: Path) -> None:
    """A class of one image cannot be in both parts, which is an input error."""
    write_npz(tmp_path, pixels(5), np.array([0, 0, 0, 0, 1]))
    read = card(tmp_path, {"source": "npz", "train": "train.npz"} | SPLIT)
    with pytest.raises(InputError, match=r"5 images cannot be split, 0\.5 of each class apart"):
        data.load(read, "train")
