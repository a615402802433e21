"""Decoder of image files, which data sources and the runtime share; knows no torch.

Legend: H height, W width.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
"""Endings of the names of image files, in lower case."""


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
    try:
        with Image.open(source) as image:
            if image.mode[0] in "IF":
                raise InputError(f"{where}: must have 8 bits a channel, got Pillow's mode {image.mode!r}.")
            pixels = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    # A damaged PNG is a SyntaxError to Pillow; an image of absurd size is an error of its own.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        named = str(source) if isinstance(source, Path) else source
        reason = str(error).replace(f" {named!r}", "").rstrip(".")
        raise InputError(f"{where}: must be an image that Pillow can read ({reason}).") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
