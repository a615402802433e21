"""Preprocessing of images: resizing and colours as Pillow does them, and normalisation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from planner.errors import InputError
from planner.network import data
from tests.helpers.image_files import NPZ, SIZE, card, pixels, write_npz


@pytest.mark.parametrize(("height", "width", "resize"), [(9, 7, 4), (20, 30, 6), (3, 5, 5), (4, 4, 4)])
def test_resizing_is_pillows(tmp_path: Path, height: int, width: int, resize: int) -> None:
    """The shorter side is resized with antialiasing and the centre cropped, as by Pillow up to one grey level."""
    image = Image.fromarray(pixels(1, height, width)[0])
    scale = resize / min(height, width)
    resized = image.resize((int(width * scale + 1e-9), int(height * scale + 1e-9)), Image.Resampling.BILINEAR)
    left, top = (resized.width - SIZE) // 2, (resized.height - SIZE) // 2
    expected = np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)), dtype=float)
    write_npz(tmp_path, np.asarray(image)[None].repeat(2, 0), np.array([0, 1]))
    preprocessing = {"scale": 1.0, "mean": [0.0], "std": [1.0], "resize": resize}
    got = data.load(card(tmp_path, NPZ, preprocessing=preprocessing), "train").tensor()
    assert np.abs(got[1, 0].numpy() - expected).max() <= 1


@pytest.mark.parametrize(("height", "width", "top", "left"), [(8, 4, 0, 1), (3, 12, 1, 0), (2, 2, 0, 0), (40, 1, 0, 1)])
def test_a_letterboxed_image_is_whole(tmp_path: Path, height: int, width: int, top: int, left: int) -> None:
    """All of an image is scaled into 4 x 4 pixels by Pillow, in its proportions; around it values are 0."""
    image = Image.fromarray(pixels(1, height, width)[0])
    inner = image.resize(
        (max(1, 4 * width // max(height, width)), max(1, 4 * height // max(height, width))), Image.Resampling.BILINEAR
    )
    write_npz(tmp_path, np.asarray(image)[None].repeat(2, 0), np.array([0, 1]))
    preprocessing = {"scale": 1.0, "mean": [300.0], "std": [1.0], "resize": "letterbox"}
    got = data.load(card(tmp_path, NPZ, preprocessing=preprocessing), "train").tensor()[1, 0].numpy()
    expected = np.zeros((SIZE, SIZE))
    expected[top : top + inner.height, left : left + inner.width] = np.asarray(inner, dtype=float) - 300
    assert np.abs(got - expected).max() <= 1
    assert np.array_equal(got == 0, expected == 0)


def test_advice_never_cuts_most_of_an_image_away(tmp_path: Path) -> None:
    """A crop is proposed only where it keeps half of the image."""
    for shape, advice in (
        ((5, 6), r'as by "resize": 4\.'),
        ((4, 40), r'"letterbox" or "resize": \[4, 4\]: a crop would keep 10% of them'),
    ):
        write_npz(tmp_path, pixels(2, *shape), np.array([0, 1]))
        with pytest.raises(InputError, match=advice):
            data.load(card(tmp_path, NPZ), "train")


def test_colours_become_grey_as_in_pillow(tmp_path: Path) -> None:
    """A model of one channel sees the luma of colour images."""
    images = pixels(2, channels=3)
    write_npz(tmp_path, images, np.array([0, 1]))
    got = data.load(card(tmp_path, NPZ), "train").tensor()
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L"), dtype=float) for image in images])
    assert np.abs(got[:, 0].numpy() - expected).max() <= 1


def test_grey_becomes_three_channels(tmp_path: Path) -> None:
    """A model of three channels sees the grey in each, normalised by that channel's mean and standard deviation."""
    images = pixels(2)
    write_npz(tmp_path, images, np.array([0, 1]))
    preprocessing = {"mean": [0.0, 0.5, 0.25], "std": [1.0, 0.5, 2.0]}
    got = data.load(card(tmp_path, NPZ, channels=3, preprocessing=preprocessing), "train").tensor()
    for c in range(3):
        expected = (images / 255 - preprocessing["mean"][c]) / preprocessing["std"][c]
        np.testing.assert_allclose(got[:, c].numpy(), expected, rtol=1e-5, atol=1e-6)
