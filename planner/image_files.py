"""Decoder of image files, which data sources and the runtime share; knows no torch.

Legend: H height, W width.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.files import open_file

if TYPE_CHECKING:
    from PIL import Image

# More than any camera of a fleet takes; as floats of three channels, they are 600 MB.
_MAX_PIXELS = 50_000_000


def not_installed(what: str, package: str) -> InputError:
    """Return the error that a package of the data extra is missing."""
    return InputError(f"{what} needs {package}, which is not installed: pip install 'vit-planner[data]'.")


def decode_image(source: Path | BinaryIO, where: Path | str, what: str) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 1 or 3) of an image.

    Args:
        source: Path of a file, or its content.
        where: Source to name in messages.
        what: Purpose to name where Pillow is not installed.

    Raises:
        InputError: If it is no image, a damaged one or one of absurd size, or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise not_installed(what, "Pillow") from None
    with open_file(source) if isinstance(source, Path) else nullcontext(source) as file:
        try:
            pixels = _decoded(Image.open(file), where)
        except InputError:
            raise
        # A damaged image can fail anywhere in Pillow, with any exception.
        except Exception as error:
            reason = "too large" if isinstance(error, Image.DecompressionBombError) else "damaged or of another format"
            raise InputError(f"{where}: must be an image that Pillow can read, got one that is {reason}.") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _decoded(image: "Image.Image", where: Path | str) -> NDArray[np.uint8]:
    """Return the pixels of an opened image, (H, W) or (H, W, 3)."""
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise InputError(f"{where}: must have at most {_MAX_PIXELS:,} pixels, got {width} x {height}.")
    if image.mode[0] in "IF":
        raise InputError(f"{where}: must have 8 bits a channel, got Pillow's mode {image.mode!r}.")
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
