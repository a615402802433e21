"""Images on their way to the devices: the pixels that training saw, and a sentence for what is no image."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.io import wavfile

from planner.errors import InputError
from planner.network import data
from planner.network.data import LazyImages
from planner.network.data.pixels import fit_to_network
from planner.runtime.images import image_files, image_of_file, raw_image, read_image
from planner.schema import Architecture, ModelCard, Preprocessing
from planner.schema.deployment import ImageInput

Image = pytest.importorskip("PIL.Image")


def image_input(channels: int, size: int, resize: int | str | None = None, dtype: str = "uint8") -> ImageInput:
    """Return a square input."""
    preprocessing = {"mean": [0.5] * channels, "std": [0.5] * channels, "resize": resize}
    return ImageInput.model_validate({"shape": (channels, size, size), "dtype": dtype, "preprocessing": preprocessing})


def png(pixels: NDArray[Any]) -> bytes:
    """Return pixels (H, W) or (H, W, 3) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    is_grey=st.booleans(),
    channels=st.sampled_from([1, 3]),
    resize=st.integers(8, 20) | st.just("letterbox"),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_pixels_are_those_of_training(
    height: int, width: int, is_grey: bool, channels: int, resize: int | str, seed: int
) -> None:
    """Channels, scale, crop and letterbox agree with torch's, but for a value beside the border between two steps."""
    shape = (height, width) if is_grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    sizes = {"patch_size": 4, "in_channels": channels, "embed_dim": 8, "depth": 1, "num_heads": 1}
    architecture = Architecture(**sizes, image_size=8, head_dim=8, hidden_dim=8)
    mean = (0.5,) * channels
    preprocessing = Preprocessing.model_validate({"mean": mean, "std": mean, "resize": resize})
    stored = torch.from_numpy(pixels.reshape(height, width, -1)).permute(2, 0, 1)[None]
    expected = fit_to_network("here", stored, architecture, preprocessing)[0].numpy()
    got = image_of_file(png(pixels), image_input(channels, 8, resize))
    assert (got.shape, str(got.dtype)) == ((channels, 8, 8), "uint8")
    # Rounding is half a step, and the two scale in another order.
    assert np.abs(got - expected).max() <= 0.501
    floats = image_of_file(png(pixels), image_input(channels, 8, resize, "float32"))
    assert floats.dtype == np.float32
    assert np.abs(floats - expected).max() <= 1e-2


def test_an_image_of_the_right_size_stays_as_it_is(tmp_path: Path) -> None:
    """Without resizing, pixels are sent as they are stored."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    assert np.array_equal(read_image(tmp_path / "a.png", image_input(3, 8)), pixels.transpose(2, 0, 1))


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    """Another size, no image, more channels than images have."""
    wide = png(np.zeros((8, 9), np.uint8))
    with pytest.raises(InputError, match=r"the image: images must be 8 x 8 pixels, got 8 x 9; the model's card does"):
        image_of_file(wide, image_input(1, 8))
    (tmp_path / "a.png").write_bytes(wide[:40])
    with pytest.raises(InputError, match=r"a\.png: must be an image that Pillow can read"):
        read_image(tmp_path / "a.png", image_input(1, 8))
    with pytest.raises(InputError, match=r"the image: must be an image that Pillow can read, got one that is damaged"):
        image_of_file(b"text", image_input(1, 8))
    with pytest.raises(InputError, match="images of 5 channels can only be sent as raw bytes"):
        image_of_file(wide, image_input(5, 8))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_raw_bytes_are_values_in_order(dtype: str) -> None:
    """Little-endian values of (ch, H, W)."""
    expected = np.arange(18).reshape(2, 3, 3).astype(np.dtype(dtype).newbyteorder("<"))
    image = image_input(2, 3, dtype=dtype)
    assert np.array_equal(raw_image(expected.tobytes(), image), expected)
    with pytest.raises(
        InputError, match=rf"a raw image must have {image.num_bytes} bytes, 2 x 3 x 3 of {dtype}, got 3"
    ):
        raw_image(b"abc", image)


def test_folders_stand_for_their_images(tmp_path: Path) -> None:
    """Files come in the order given, those of a folder by name; what is no image there is passed over."""
    (tmp_path / "in").mkdir()
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / "in" / name).touch()
    (tmp_path / "single").touch()
    found = image_files([tmp_path / "single", tmp_path / "in"], image_input(1, 8))
    assert [path.name for path in found] == ["single", "a.JPG", "b.png"]
    with pytest.raises(InputError, match="absent: no such file"):
        image_files([tmp_path / "absent"], image_input(1, 8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: must have image files \(\.bmp, .*\), got none"):
        image_files([tmp_path / "empty"], image_input(1, 8))
    with pytest.raises(InputError, match=r"in: must have sound files \(\.wav\), got none"):
        image_files([tmp_path / "in"], SOUND)


SOUND = ImageInput.model_validate(
    {
        "shape": (1, 4, 3),
        "dtype": "float32",
        "preprocessing": {"scale": 1.0, "mean": [-5.0], "std": [2.0]},
        "spectrogram": {"sample_rate": 1000, "window_ms": 12, "hop_ms": 5},
    }
)


def test_sounds_are_sent_as_training_saw_them(tmp_path: Path) -> None:
    """A .wav file becomes the spectrogram that a model's training has of it, from a path as from its content."""
    (tmp_path / "train" / "bark").mkdir(parents=True)
    file = tmp_path / "train" / "bark" / "1.wav"
    wavfile.write(file, 1000, np.random.default_rng(0).integers(-9999, 9999, 40, dtype=np.int16))
    architecture = {"image_size": [4, 3], "patch_size": [2, 3], "in_channels": 1, "embed_dim": 8, "depth": 1}
    assert SOUND.spectrogram is not None
    card = ModelCard.model_validate(
        {
            "model": "ears",
            "description": "",
            "architecture": architecture | {"num_heads": 1, "head_dim": 8, "hidden_dim": 8},
            "classes": ["bark"],
            "data": {
                "source": "audio-folder",
                "train": str(tmp_path / "train"),
                "test": str(tmp_path / "train"),
                "spectrogram": SOUND.spectrogram.model_dump(),
            },
            "preprocessing": SOUND.preprocessing.model_dump(),
        }
    )
    images = data.load(card, "train").images
    assert isinstance(images, LazyImages)
    expected = images.pixel_values(torch.arange(1))[0].numpy()
    for got in (read_image(file, SOUND), image_of_file(file.read_bytes(), SOUND)):
        assert (got.shape, str(got.dtype)) == ((1, 4, 3), "float32")
        assert np.array_equal(got, expected)


def test_what_is_no_sound_is_said(tmp_path: Path) -> None:
    """Another sample rate, and an image."""
    wavfile.write(tmp_path / "a.wav", 8000, np.ones(40, dtype=np.int16))
    with pytest.raises(InputError, match=r"a\.wav: must have the card's sample_rate of 1000 Hz, got 8000"):
        read_image(tmp_path / "a.wav", SOUND)
    with pytest.raises(InputError, match=r"the sound: must be a \.wav file of plain samples, got a damaged or another"):
        image_of_file(png(np.zeros((4, 3), np.uint8)), SOUND)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "uint8"}, "spectrogram: must be one channel of float32, got 1 of uint8"),
        ({"shape": (1, 60_000, 2)}, "spectrogram must take at most 16,000,000 values"),
    ],
)
def test_spectrograms_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    """Numbers of bytes, and more values than a machine has memory for."""
    spectrogram = {"sample_rate": 384_000, "window_ms": 12, "hop_ms": 5}
    with pytest.raises(ValidationError, match=message):
        ImageInput.model_validate(SOUND.model_dump() | {"spectrogram": spectrogram} | change)
