"""Images on their way to the devices: files decoded, scaled and cropped as the model's card says, raw bytes checked.

What is sent are values of pixels as they are stored, rounded where they are bytes; the sub-models normalise them.

Legend: ch channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.image_files import IMAGE_SUFFIXES, decode_image
from planner.runtime.device.names import DTYPES
from planner.schema.deployment import ImageInput

# ITU-R 601, as in training.
_LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


def image_files(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return files, and in place of a folder the image files in it, sorted by name.

    Raises:
        InputError: If a path does not exist, or a folder has no image file.
    """
    return tuple(file for path in paths for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path}: no such file.")
        yield path
        return
    inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not inside:
        raise InputError(f"{path}: must have image files ({', '.join(sorted(IMAGE_SUFFIXES))}), got none.")
    yield from inside


def read_image(path: Path, expected: ImageInput) -> NDArray[Any]:
    """Return an image file as it is sent (ch, H, W).

    Raises:
        InputError: If it is no image, or has another size and the card does not resize.
    """
    return _fit(path, path, expected)


def image_of_file(content: bytes, expected: ImageInput) -> NDArray[Any]:
    """Return the image that is the content of an image file as it is sent (ch, H, W).

    Raises:
        InputError: As `read_image` does.
    """
    return _fit(BytesIO(content), "the image", expected)


def raw_image(content: bytes, expected: ImageInput) -> NDArray[Any]:
    """Return an image of raw bytes: the values of (ch, H, W) in that order, little-endian.

    Raises:
        InputError: If there are too many or too few.
    """
    if len(content) != expected.num_bytes:
        shape = " x ".join(map(str, expected.shape))
        raise InputError(
            f"a raw image must have {expected.num_bytes} bytes, {shape} of {expected.dtype}, got {len(content)}."
        )
    return np.frombuffer(content, DTYPES[expected.dtype]).reshape(expected.shape)


def _fit(source: Path | BinaryIO, where: Path | str, expected: ImageInput) -> NDArray[Any]:
    pixels = decode_image(source, where, "reading images")
    count, height, width = expected.shape
    if count not in (1, 3):
        raise InputError(f"{where}: images of {count} channels can only be sent as raw bytes, got an image file.")
    # A channel after the other: as floats, all of a large photograph would need much memory.
    channels = [_scaled(channel, expected) for channel in _channels(pixels, count)]
    got_height, got_width = channels[0].shape
    if (got_height, got_width) != (height, width):
        raise InputError(
            f"{where}: images must be {height} x {width} pixels, got {got_height} x {got_width}; "
            "the model's card does not resize them."
        )
    image = np.stack(channels)  # (ch, H, W)
    if expected.dtype == "uint8":
        image = np.clip(np.rint(image), 0, 255)
    return image.astype(DTYPES[expected.dtype])


def _channels(pixels: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.float32]]:
    """Yield each channel (H, W) of pixels (H, W, 1 or 3): grey as equal red, green and blue, and colour as grey."""
    if pixels.shape[2] == 3 and count == 1:
        yield pixels.astype(np.float32) @ _LUMA
        return
    for i in range(count):
        yield pixels[:, :, min(i, pixels.shape[2] - 1)].astype(np.float32)


def _scaled(channel: NDArray[np.float32], expected: ImageInput) -> NDArray[np.float32]:
    """Return a channel with its shorter side scaled, and the middle of it."""
    if expected.preprocessing.resize is None:
        return channel
    from PIL import Image

    height, width = expected.preprocessing.resized(*channel.shape)
    # As in training: bilinear with antialiasing, on floats.
    scaled = np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
    _, height, width = expected.shape
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return scaled[top : top + height, left : left + width]
