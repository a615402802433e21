"""Images on their way to the devices: files decoded, scaled and cropped as the model's card says, raw bytes checked.

What is sent are values of pixels as they are stored, rounded where they are bytes; the sub-models normalise them. Where
the model's images are spectrograms, files are sounds.

Legend: ch channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.image_files import decode_image
from planner.runtime.device.names import DTYPES
from planner.sample_files import IMAGE_FILES, SOUND_FILES, FileKind, files_in
from planner.schema import ImageInput, Spectrogram
from planner.spectrograms import FramePlan, log_mel, read_wav

# ITU-R 601, as in training.
_LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


def image_files(paths: Sequence[Path], expected: ImageInput) -> tuple[Path, ...]:
    """Return files, and in place of a folder the image files in it, or those of sounds, sorted by name.

    Raises:
        InputError: If a path does not exist, or a folder has no such file or one of a format that is not read.
    """
    kind = IMAGE_FILES if expected.spectrogram is None else SOUND_FILES
    return tuple(file for path in paths for file in _files(path, kind))


def _files(path: Path, kind: FileKind) -> Iterator[Path]:
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path}: no such file.")
        yield path
        return
    inside = files_in(path, kind)
    if not inside:
        raise InputError(f"{path}: must have {kind.name} files ({', '.join(sorted(kind.suffixes))}), got none.")
    yield from inside


def read_image(path: Path, expected: ImageInput) -> NDArray[Any]:
    """Return a file of an image, or of a sound, as it is sent (ch, H, W).

    Raises:
        InputError: If it is none, or an image of another size that the card does not resize, or a sound of another
            sample rate.
    """
    if expected.spectrogram is not None:
        return _spectrogram(path, path, expected.spectrogram, expected)
    return _fit(path, path, expected)


def image_of_file(content: bytes, expected: ImageInput) -> NDArray[Any]:
    """Return the image, or the sound, that is the content of a file as it is sent (ch, H, W).

    Raises:
        InputError: As `read_image` does.
    """
    if expected.spectrogram is not None:
        return _spectrogram(content, "the sound", expected.spectrogram, expected)
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


def _spectrogram(
    source: Path | bytes, where: Path | str, spectrogram: Spectrogram, expected: ImageInput
) -> NDArray[Any]:
    plan = FramePlan.of(spectrogram, expected.shape[1:])
    samples = read_wav(source, where, plan.sample_rate)
    return log_mel(samples, plan)[None].astype(DTYPES[expected.dtype])


def _fit(source: Path | BinaryIO, where: Path | str, expected: ImageInput) -> NDArray[Any]:
    pixels = decode_image(source, where, "reading images")
    count, height, width = expected.shape
    if count not in (1, 3):
        raise InputError(f"{where}: images of {count} channels can only be sent as raw bytes, got an image file.")
    # A channel after the other: as floats, all of a large photograph would need much memory.
    colours = expected.preprocessing.letterbox_colour
    channels = [_scaled(channel, expected, c) for channel, c in zip(_channels(pixels, count), colours, strict=True)]
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


def _scaled(channel: NDArray[np.float32], expected: ImageInput, colour: float) -> NDArray[np.float32]:
    """Return a channel as the card resizes it: the middle of it, or all of it with a colour around."""
    if expected.preprocessing.resize is None:
        return channel
    from PIL import Image

    (rows, columns), sides = channel.shape, expected.shape[1:]
    height, width = expected.preprocessing.resized(rows, columns, sides)
    # As in training: bilinear with antialiasing, on floats.
    scaled = np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
    fitted = np.full(sides, colour, dtype=np.float32)
    here, there = zip(*(_middles(a, b) for a, b in zip(fitted.shape, scaled.shape, strict=True)), strict=True)
    fitted[here] = scaled[there]
    return fitted


def _middles(length: int, other: int) -> tuple[slice, slice]:
    """Return the middle of two lengths, as long as the shorter one."""
    shorter = min(length, other)
    first, second = (length - shorter) // 2, (other - shorter) // 2
    return slice(first, first + shorter), slice(second, second + shorter)
