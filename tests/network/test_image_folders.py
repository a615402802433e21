"""Folders of image files: classes by folder name, damaged images named."""

import io
from pathlib import Path

import pytest
from PIL import Image

from planner.errors import InputError
from planner.network import data
from planner.network.data import Samples
from planner.sample_files import IMAGE_FILES
from tests.helpers.image_files import FOLDERS, SIZE, SPLIT, card, write_folders
from tests.helpers.refusals import assert_sentence


def greys(samples: Samples) -> list[float]:
    """Return the grey of each image."""
    return samples.tensor()[:, 0, 0, 0].tolist()


def test_folders_of_class_names_are_read(tmp_path: Path) -> None:
    """Folders are classes by name, in any order; files that are not images are skipped."""
    write_folders(tmp_path, ["cat", "dog"])
    (tmp_path / "train" / "dog" / "notes.txt").touch()
    (tmp_path / "train" / ".cache").mkdir()
    got = data.load(card(tmp_path, FOLDERS, ["dog", "cat"]), "train")
    assert got.labels.tolist() == [1, 1, 0, 0]
    assert greys(got) == [10, 10, 20, 20]


def test_numbered_classes_are_the_sorted_folders(tmp_path: Path) -> None:
    """For a card without names, the sorted folders of the training part are the classes of both parts."""
    write_folders(tmp_path, ["ant", "bee", "cow"])
    write_folders(tmp_path, ["cow"], "test", per_class=1)
    read = card(tmp_path, FOLDERS, 3)
    assert data.load(read, "train").labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.load_stored_test(read).labels.tolist() == [2]


def test_folders_named_by_numbers_are_those_classes(tmp_path: Path) -> None:
    """Folder 10 is class 10 if the card says so, though as text it comes before folder 2: else that is asked."""
    names = [str(i) for i in range(11)]
    write_folders(tmp_path, names, per_class=1)
    got = data.load(card(tmp_path, FOLDERS | {"folders_by_number": True}, 11), "train")
    assert dict(zip(greys(got), got.labels.tolist(), strict=True)) == {10 * (i + 1): i for i in range(11)}
    with pytest.raises(
        InputError, match=r"train: folders '0' to '10' have two orders.*`classes`: \[\"0\", \"1\", \"10\", "
    ):
        data.load(card(tmp_path, FOLDERS, 11), "train")
    got = data.load(card(tmp_path, FOLDERS, sorted(names)), "train")
    assert [greys(got)[i] for i in got.labels.argsort()][:3] == [10, 20, 110]


@pytest.mark.parametrize("pattern", ["{}", "room {}", "{}-room"])
def test_numbers_in_folders_names_have_two_orders(tmp_path: Path, pattern: str) -> None:
    """Folders 1 to 10 are not the numbered classes, 0 to 9: as text 10 is the second of them, and which is asked."""
    names = [pattern.format(i) for i in range(1, 11)]
    write_folders(tmp_path, names, per_class=1)
    with pytest.raises(InputError, match=rf"folders '{names[0]}' to '{names[-1]}' have two orders") as error:
        data.load(card(tmp_path, FOLDERS, 10), "train")
    assert_sentence(error, tmp_path / "train")
    got = data.load(card(tmp_path, FOLDERS | {"folders_by_number": True}, 10), "train")
    assert [greys(got)[i] for i in got.labels.argsort()] == [10 * i for i in range(1, 11)]
    got = data.load(card(tmp_path, FOLDERS, sorted(names)), "train")
    assert [greys(got)[i] for i in got.labels.argsort()] == [10 * (names.index(name) + 1) for name in sorted(names)]


def test_numbers_of_one_length_have_one_order(tmp_path: Path) -> None:
    """Numbers with leading zeros, as of WordNet, are in the same order as text."""
    names = [f"n{i:03}" for i in range(1, 12)]
    write_folders(tmp_path, ["dog a", "dog1", *names], per_class=1)
    got = data.load(card(tmp_path, FOLDERS, 13), "train")
    assert [greys(got)[i] for i in got.labels.argsort()] == [10 * i for i in range(1, 14)]


@pytest.mark.parametrize("ending", sorted(IMAGE_FILES.suffixes | {".JPG"}))
def test_endings_of_image_files(tmp_path: Path, ending: str) -> None:
    """Files of the endings of JPEG, `.jfif` too, are images, as are those of other formats."""
    write_folders(tmp_path, ["a", "b"], per_class=1)
    Image.new("L", (SIZE, SIZE), 30).save(tmp_path / "train" / "a" / f"x{ending}", "jpeg")
    assert len(data.load(card(tmp_path, FOLDERS, ["a", "b"]), "train")) == 3


def test_no_image_is_left_out_without_a_word(tmp_path: Path) -> None:
    """An image in a format that is not read, and a folder within a class's; hidden files are nobody's images."""
    write_folders(tmp_path, ["a", "b"])
    for hidden in ("._0.png", ".heic"):
        (tmp_path / "train" / "a" / hidden).touch()
    read = card(tmp_path, FOLDERS, ["a", "b"])
    assert len(data.load(read, "train")) == 4
    photo = tmp_path / "train" / "b" / "IMG 7.HEIC"
    photo.touch()
    with pytest.raises(InputError, match=r"7\.HEIC: image files must end in \.bmp, .*, got \.HEIC: convert") as error:
        data.load(read, "train")
    assert_sentence(error, photo)
    photo.unlink()
    (inner := tmp_path / "train" / "b" / "more").mkdir()
    with pytest.raises(InputError, match="image files must be in the class's folder itself, got a folder") as error:
        data.load(read, "train")
    assert_sentence(error, inner)


def test_image_files_are_split_when_there_is_but_one_folder(tmp_path: Path) -> None:
    """Without a test folder, half of each class is the test part."""
    write_folders(tmp_path, ["cat", "dog"])
    read = card(tmp_path, {"source": "folder", "train": "train"} | SPLIT, ["cat", "dog"])
    for part in (data.load(read, "train"), data.load_stored_test(read)):
        assert part.labels.tolist() == [0, 1]


def test_folders_that_are_not_the_cards_are_refused(tmp_path: Path) -> None:
    """A missing root, an unknown folder, a class without images and a wrong number of folders are refused."""
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


def png(image: Image.Image) -> bytes:
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
def test_a_damaged_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """An image file that cannot be used is named when the image is read."""
    write_folders(tmp_path, ["cat", "dog"])
    bad = tmp_path / "train" / "dog" / "0.png"
    bad.write_bytes(content)
    got = data.load(card(tmp_path, FOLDERS, ["cat", "dog"]), "train")
    with pytest.raises(InputError, match=message) as error:
        got.tensor()
    assert_sentence(error, bad)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "LA", "CMYK"])
def test_image_files_of_any_mode_are_read(tmp_path: Path, mode: str) -> None:
    """Images of every Pillow mode become three channels."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (SIZE, SIZE), "white").convert(mode).save(tmp_path / "train" / name / "x.tif")
    got = data.load(card(tmp_path, FOLDERS, ["a", "b"], channels=3), "train").tensor()
    assert got.shape == (2, 3, SIZE, SIZE)
    assert (got == 255).all()
