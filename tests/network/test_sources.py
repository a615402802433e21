"""Data sources: what is stored comes out as images and labels, and what is damaged is refused in a sentence."""

import gzip
import io
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from planner.errors import InputError
from planner.network import data
from planner.network.checkpoint import load_card
from planner.network.data import LazyImages

SIZE = 4
SPLIT = {"test_share": 0.5, "split_seed": 0}


def pixels(count, height=SIZE, width=SIZE, channels=None, seed=0):
    """Return random bytes (count, height, width) or (count, height, width, channels)."""
    size = (count, height, width) + (() if channels is None else (channels,))
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def idx(array, dims=None, magic=None):
    """Return an IDX file: two zero bytes, type 8, the number of dimensions, the sizes, the bytes."""
    dims = array.shape if dims is None else dims
    head = bytes([0, 0, 8, len(dims)]) if magic is None else magic
    return head + b"".join(struct.pack(">I", size) for size in dims) + array.astype(np.uint8).tobytes()


def card(folder, source, classes=2, channels=1, preprocessing=None):
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


def assert_sentence(error, path):
    """A complaint about data is one line that begins with the file."""
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


# IDX


IDX = {"source": "idx", "train_images": "ti", "train_labels": "tl", "test_images": "ei", "test_labels": "el"}


def write_idx(folder, zipped=False, **changes):
    """Write both parts, 4 and 2 images of two classes, some files changed; return the pixels."""
    train, test = pixels(4), pixels(2, seed=1)
    files = {"ti": idx(train), "tl": idx(np.array([0, 1, 1, 0])), "ei": idx(test), "el": idx(np.array([1, 0]))}
    for name, content in (files | changes).items():
        (folder / name).write_bytes(gzip.compress(content) if zipped else content)
    return train, test


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read(tmp_path, zipped):
    """Both parts with their labels, gzipped or not; the paths are the card's, wherever one works."""
    train, test = write_idx(tmp_path, zipped)
    read = card(tmp_path, IDX)
    got = data.load(read, "train")
    assert torch.equal(got.tensor()[:, 0], torch.from_numpy(train).float())
    assert got.labels.tolist() == [0, 1, 1, 0]
    got = data.load(read, "test")
    assert torch.equal(got.tensor()[:, 0], torch.from_numpy(test).float())
    assert got.labels.tolist() == [1, 0]


def test_a_test_part_is_split_off(tmp_path):
    """Where only a training part is stored, half of each class is the test part, nothing in both."""
    train, _ = write_idx(tmp_path)
    read = card(tmp_path, {key: IDX[key] for key in ("source", "train_images", "train_labels")} | SPLIT)
    parts = [data.load(read, part) for part in ("train", "test")]
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
def test_damaged_idx_files_are_refused(tmp_path, name, content, message):
    """Another magic number, too few or too many bytes, labels that are no classes: file and numbers are said."""
    write_idx(tmp_path, **{name: content})
    with pytest.raises(InputError, match=message) as error:
        data.load(card(tmp_path, IDX), "train")
    assert_sentence(error, tmp_path / name)


def test_missing_idx_files_are_refused(tmp_path):
    """A file that is not there is named, with the card's folder."""
    with pytest.raises(InputError, match="ti: cannot be read") as error:
        data.load(card(tmp_path, IDX), "train")
    assert_sentence(error, tmp_path / "ti")


def test_a_class_may_be_missing_in_a_test_part(tmp_path):
    """Only training needs every class, but a part needs an image."""
    write_idx(tmp_path, el=idx(np.array([1, 1])))
    assert data.load(card(tmp_path, IDX), "test").labels.tolist() == [1, 1]
    write_idx(tmp_path, ei=idx(pixels(0)), el=idx(np.array([])))
    with pytest.raises(InputError, match="el: must have at least one image"):
        data.load(card(tmp_path, IDX), "test")


# npz


NPZ = {"source": "npz", "train": "train.npz", "test": "test.npz"}


def write_npz(folder, images, labels, keys=("images", "labels")):
    """Write a training part."""
    np.savez(folder / "train.npz", **dict(zip(keys, (images, labels), strict=True)))


def test_npz_arrays_are_read(tmp_path):
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
def test_other_arrays_are_refused(tmp_path, images, labels, keys, message):
    """Another key, type, shape or size: file and numbers are said; objects are never unpickled."""
    write_npz(tmp_path, images, np.array(labels), keys or ("images", "labels"))
    with pytest.raises(InputError, match=message) as error:
        data.load(card(tmp_path, NPZ), "train")
    assert_sentence(error, tmp_path / "train.npz")


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 no archive"])
def test_what_is_no_npz_is_refused(tmp_path, content):
    """A missing, empty or damaged file is named."""
    if content is not None:
        (tmp_path / "train.npz").write_bytes(content)
    message = "cannot be read" if content is None else r"must be an \.npz file"
    with pytest.raises(InputError, match=message) as error:
        data.load(card(tmp_path, NPZ), "train")
    assert_sentence(error, tmp_path / "train.npz")


# Folders


FOLDERS = {"source": "folder", "train": "train", "test": "test"}


def write_folders(root, classes, part="train", per_class=2, mode="L"):
    """Write images of one grey for each class, 10 for the first, 20 for the second and so on."""
    for i, name in enumerate(classes):
        (root / part / name).mkdir(parents=True)
        for j in range(per_class):
            Image.new(mode, (SIZE, SIZE), 10 * (i + 1)).save(root / part / name / f"{j}.png")


def greys(samples):
    """Return the grey of each image."""
    return samples.tensor()[:, 0, 0, 0].tolist()


def test_folders_of_class_names_are_read(tmp_path):
    """A folder's name is its class's, in whatever order the card has them; what is no image is passed over."""
    write_folders(tmp_path, ["cat", "dog"])
    (tmp_path / "train" / "dog" / "notes.txt").touch()
    (tmp_path / "train" / ".cache").mkdir()
    got = data.load(card(tmp_path, FOLDERS, ["dog", "cat"]), "train")
    assert got.labels.tolist() == [1, 1, 0, 0]
    assert greys(got) == [10, 10, 20, 20]


def test_numbered_classes_are_the_sorted_folders(tmp_path):
    """Where the card has no names, the training part's sorted folders are the classes, in the test part too."""
    write_folders(tmp_path, ["ant", "bee", "cow"])
    write_folders(tmp_path, ["cow"], "test", per_class=1)
    read = card(tmp_path, FOLDERS, 3)
    assert data.load(read, "train").labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.load(read, "test").labels.tolist() == [2]


def test_folders_named_by_numbers_are_those_classes(tmp_path):
    """Folder 10 is class 10, though it sorts before folder 2."""
    names = [str(i) for i in range(11)]
    write_folders(tmp_path, names, per_class=1)
    got = data.load(card(tmp_path, FOLDERS, 11), "train")
    assert dict(zip(greys(got), got.labels.tolist(), strict=True)) == {10 * (i + 1): i for i in range(11)}


def test_image_files_are_split_when_there_is_but_one_folder(tmp_path):
    """Without a test folder, half of each class is the test part."""
    write_folders(tmp_path, ["cat", "dog"])
    read = card(tmp_path, {"source": "folder", "train": "train"} | SPLIT, ["cat", "dog"])
    for part in ("train", "test"):
        assert data.load(read, part).labels.tolist() == [0, 1]


def test_folders_that_are_not_the_cards_are_refused(tmp_path):
    """A missing root, a folder that is no class, a class without images, another number of folders."""
    read = card(tmp_path, FOLDERS, ["cat", "dog"])
    with pytest.raises(InputError, match="must be a folder of class folders, got nothing") as error:
        data.load(read, "train")
    assert_sentence(error, tmp_path / "train")
    write_folders(tmp_path, ["cat", "dig"])
    with pytest.raises(InputError, match=r"dig: must have a class's name; did you mean 'dog'\?") as error:
        data.load(read, "train")
    assert_sentence(error, tmp_path / "train" / "dig")
    (tmp_path / "train" / "dig").rename(tmp_path / "train" / "dog")
    for file in (tmp_path / "train" / "dog").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="train: class 'dog' must have training images, got none"):
        data.load(read, "train")
    with pytest.raises(InputError, match="must have a folder for each of 3 classes, got 2"):
        data.load(card(tmp_path, FOLDERS, 3), "train")
    (tmp_path / "test").touch()
    with pytest.raises(InputError, match="test: must be a folder of class folders, got a file"):
        data.load(read, "test")


def png(image):
    """Return an image as a PNG file's bytes."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be an image that Pillow can read"),
        (b"no image", "must be an image that Pillow can read"),
        (png(Image.effect_noise((SIZE, SIZE), 50))[:50], "must be an image that Pillow can read"),
        (png(Image.new("L", (5, 4))), "images must be 4 x 4 pixels, got 4 x 5"),
        (png(Image.new("I;16", (SIZE, SIZE))), "must have 8 bits a channel, got Pillow's mode 'I;16'"),
    ],
)
def test_a_damaged_image_is_named(tmp_path, content, message):
    """The file of an image that cannot be used is named when the image is asked for."""
    write_folders(tmp_path, ["cat", "dog"])
    bad = tmp_path / "train" / "dog" / "0.png"
    bad.write_bytes(content)
    got = data.load(card(tmp_path, FOLDERS, ["cat", "dog"]), "train")
    with pytest.raises(InputError, match=message) as error:
        got.tensor()
    assert_sentence(error, bad)


# Preprocessing


@pytest.mark.parametrize(("height", "width", "resize"), [(9, 7, 4), (20, 30, 6), (3, 5, 5), (4, 4, 4)])
def test_resizing_is_pillows(tmp_path, height, width, resize):
    """The shorter side is resized with antialiasing, and the middle cut out, as Pillow does it, to one grey."""
    image = Image.fromarray(pixels(1, height, width)[0])
    scale = resize / min(height, width)
    resized = image.resize((int(width * scale + 1e-9), int(height * scale + 1e-9)), Image.Resampling.BILINEAR)
    left, top = (resized.width - SIZE) // 2, (resized.height - SIZE) // 2
    expected = np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)), dtype=float)
    write_npz(tmp_path, np.asarray(image)[None].repeat(2, 0), np.array([0, 1]))
    preprocessing = {"scale": 1.0, "mean": [0.0], "std": [1.0], "resize": resize}
    got = data.load(card(tmp_path, NPZ, preprocessing=preprocessing), "train").tensor()
    assert np.abs(got[1, 0].numpy() - expected).max() <= 1


def test_colours_become_grey_as_pillow_has_it(tmp_path):
    """A model of one channel sees the luma of colour images."""
    images = pixels(2, channels=3)
    write_npz(tmp_path, images, np.array([0, 1]))
    got = data.load(card(tmp_path, NPZ), "train").tensor()
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L"), dtype=float) for image in images])
    assert np.abs(got[:, 0].numpy() - expected).max() <= 1


def test_grey_becomes_three_channels(tmp_path):
    """A model of three channels sees the grey in each, normalised by each channel's own mean and spread."""
    images = pixels(2)
    write_npz(tmp_path, images, np.array([0, 1]))
    preprocessing = {"mean": [0.0, 0.5, 0.25], "std": [1.0, 0.5, 2.0]}
    got = data.load(card(tmp_path, NPZ, channels=3, preprocessing=preprocessing), "train").tensor()
    for c in range(3):
        expected = (images / 255 - preprocessing["mean"][c]) / preprocessing["std"][c]
        np.testing.assert_allclose(got[:, c].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "LA", "CMYK"])
def test_image_files_of_any_mode_are_read(tmp_path, mode):
    """Whatever Pillow turns into colours is an image of three channels."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (SIZE, SIZE), "white").convert(mode).save(tmp_path / "train" / name / "x.tif")
    got = data.load(card(tmp_path, FOLDERS, ["a", "b"], channels=3), "train").tensor()
    assert got.shape == (2, 3, SIZE, SIZE)
    assert (got == 255).all()


# Some of the images


def test_at_most_so_many_of_each_class(tmp_path):
    """At most two of each class, the same every time, as they are in the whole part; no more than there are."""
    images, labels = pixels(30), np.array([0] * 20 + [1] * 9 + [2])
    write_npz(tmp_path, images, labels)
    read = card(tmp_path, NPZ, 3)
    some, again = data.load(read, "train", per_class=2), data.load(read, "train", per_class=2)
    assert torch.equal(some.tensor(), again.tensor())
    assert some.labels.tolist() == [0, 0, 1, 1, 2]
    stored = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    drawn = [image.numpy().astype(np.uint8).tobytes() for image in some.tensor()[:, 0]]
    assert [stored[image] for image in drawn] == some.labels.tolist()
    assert len(set(drawn)) == 5
    assert drawn[:2] != [images[0].tobytes(), images[1].tobytes()]
    assert len(data.load(read, "train", per_class=100)) == 30


def test_images_are_decoded_where_they_are_asked_for(tmp_path, monkeypatch):
    """Of a folder of files, a batch opens its own files alone; parts of parts stay as lazy."""
    write_folders(tmp_path, ["cat", "dog"], per_class=5)
    got = data.load(card(tmp_path, FOLDERS, ["cat", "dog"]), "train")
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(Path(path).name) or original(path))
    part = got.take(torch.tensor([8, 1, 3]))
    assert isinstance(part.images, LazyImages)
    assert opened == []
    assert part.images[torch.tensor([0, 1])].shape == (2, 1, SIZE, SIZE)
    assert opened == ["3.png", "1.png"]
    assert part.labels.tolist() == [1, 0, 0]
    assert part.images.shape == (3, 1, SIZE, SIZE)


def test_lazy_images_are_indexed_as_tensors_are(tmp_path):
    """By slices, lists of indices, masks, single indices and in a loop: always what a tensor would give."""
    write_npz(tmp_path, pixels(6), np.array([0, 1, 0, 1, 0, 1]))
    images = data.load(card(tmp_path, NPZ), "train").images
    plain = images[:]
    mask = torch.tensor([True, False, True, False, False, True])
    for index in (slice(1, 5, 2), torch.tensor([5, 0, 5]), torch.tensor([[0, 1], [2, 3]]), mask, 4, -1):
        assert torch.equal(images[index], plain[index])
    assert torch.equal(torch.stack(list(images)), plain)
    with pytest.raises(IndexError):
        images[6]


def test_folds_of_lazy_images(tmp_path):
    """Held-out images are as lazy, and both parts together are all."""
    write_npz(tmp_path, pixels(8), np.array([0, 1] * 4))
    samples = data.load(card(tmp_path, NPZ), "train")
    kept, held = data.fold(samples, 0, 2, seed=0)
    both = torch.cat([kept.tensor(), held.tensor()]).flatten(1)
    assert sorted(both.tolist()) == sorted(samples.tensor().flatten(1).tolist())
    assert isinstance(held.images, LazyImages)


def test_a_split_that_leaves_a_class_without_images_is_refused(tmp_path):
    """A class of one image cannot be in both parts."""
    write_npz(tmp_path, pixels(5), np.array([0, 0, 0, 0, 1]))
    read = card(tmp_path, {"source": "npz", "train": "train.npz"} | SPLIT)
    with pytest.raises(InputError, match=r"5 images cannot be split, 0\.5 of each class apart"):
        data.load(read, "train")


# What is missing


def test_a_card_without_data_says_what_to_add():
    """A shipped card of sizes alone has no images."""
    with pytest.raises(InputError, match=r"'deit_tiny_patch16_224' has no data.*`data` and `preprocessing`"):
        data.load(load_card("deit_tiny_patch16_224"), "train")


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("PIL", {"source": "folder", "train": "train"} | SPLIT, "data source 'folder' needs Pillow"),
        ("sklearn.model_selection", {"source": "npz", "train": "train.npz"} | SPLIT, "test part needs scikit-learn"),
    ],
)
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, module, source, message):
    """With the extra that brings it."""
    write_folders(tmp_path, ["0", "1"])
    write_npz(tmp_path, pixels(4), np.array([0, 0, 1, 1]))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"{message}.*vit-planner\[data\]"):
        data.load(card(tmp_path, source), "train")
