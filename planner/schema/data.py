"""Sources of a model's images, and the preprocessing of their pixels.

Paths are relative to the card. Images have 8 bits a channel.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from planner.schema.base import Frozen

FilePath = Annotated[str, Field(min_length=1)]
_Source = TypeVar("_Source", bound="_Files")


class SklearnDigits(Frozen):
    """Source: the 1,797 handwritten digits that come with scikit-learn."""

    source: Literal["sklearn-digits"]
    """Kind of source."""
    test_share: float = Field(gt=0, lt=1)
    """Share of the images that is the test part."""
    split_seed: int = Field(ge=0)
    """Seed of the random split."""
    licence: str | None = None
    """Licence of the images."""
    citation: str | None = None
    """Reference to cite."""

    @property
    def has_test_part(self) -> bool:
        """Return whether the test part is stored apart from the training part."""
        return False

    def with_paths_in(self, folder: Path) -> "SklearnDigits":
        """Return the source unchanged: it has no paths."""
        return self


class _Files(Frozen):
    """Base of sources with a training part, and with a test part either stored apart or to be split off."""

    train_paths: ClassVar[tuple[str, ...]]
    test_paths: ClassVar[tuple[str, ...]]

    test_share: float | None = Field(None, gt=0, lt=1)
    """Share of the images to split off as the test part, where none is stored apart."""
    split_seed: int | None = Field(None, ge=0)
    """Seed of that random split."""
    licence: str | None = None
    """Licence of the images."""
    citation: str | None = None
    """Reference to cite."""

    @property
    def has_test_part(self) -> bool:
        """Return whether the test part is stored apart from the training part."""
        return self.test_share is None

    @model_validator(mode="after")
    def _has_one_test_part(self: _Source) -> _Source:
        for keys in (self.test_paths, ("test_share", "split_seed")):
            missing = [key for key in keys if getattr(self, key) is None]
            if 0 < len(missing) < len(keys):
                raise ValueError(f"must have {' and '.join(keys)} or none of them, got no {missing[0]}")
        stored = getattr(self, self.test_paths[0]) is not None
        if stored == (self.test_share is not None):
            raise ValueError(
                f"must have either {' and '.join(self.test_paths)} or test_share and split_seed, "
                f"got {'both' if stored else 'neither'}"
            )
        return self

    def with_paths_in(self: _Source, folder: Path) -> _Source:
        """Return a copy of the source whose paths begin with the path of the card's folder."""
        paths = {key: getattr(self, key) for key in (*self.train_paths, *self.test_paths)}
        return self.replace(**{key: str(folder / path) for key, path in paths.items() if path})


class IdxFiles(_Files):
    """Source: files in MNIST's IDX format, gzipped or not: bytes behind a header of sizes."""

    train_paths = ("train_images", "train_labels")
    test_paths = ("test_images", "test_labels")

    source: Literal["idx"]
    """Kind of source."""
    train_images: FilePath
    """File of the training part's images."""
    train_labels: FilePath
    """File of the training part's labels."""
    test_images: FilePath | None = None
    """File of the test part's images."""
    test_labels: FilePath | None = None
    """File of the test part's labels."""


class NpzFiles(_Files):
    """Source: NumPy archives, images N x H x W or N x H x W x channels of uint8, labels N of integers."""

    train_paths = ("train",)
    test_paths = ("test",)

    source: Literal["npz"]
    """Kind of source."""
    train: FilePath
    """File of the training part."""
    test: FilePath | None = None
    """File of the test part."""
    images_key: str = "images"
    """Name of the array of images."""
    labels_key: str = "labels"
    """Name of the array of labels."""


class ImageFolders(_Files):
    """Source: a folder for each part, and in it a folder of image files for each class.

    The folders have the names of the card's classes; if the classes are only numbered, the sorted names of the
    training part's folders stand for them.
    """

    train_paths = ("train",)
    test_paths = ("test",)

    source: Literal["folder"]
    """Kind of source."""
    train: FilePath
    """Folder of the training part."""
    test: FilePath | None = None
    """Folder of the test part."""


Data = Annotated[SklearnDigits | IdxFiles | NpzFiles | ImageFolders, Field(discriminator="source")]


class Preprocessing(Frozen):
    """Preprocessing of pixels: (pixel * scale - mean) / std, the last two per input channel.

    With `resize`, the shorter side is first scaled to this length [pixels] and the middle is cropped; without it, the
    images must have the model's size already.
    """

    scale: float = Field(1 / 255, gt=0)
    """Factor on pixel values, which are 0..255."""
    mean: tuple[float, ...]
    """Mean of each input channel, after scaling."""
    std: tuple[Annotated[float, Field(gt=0)], ...]
    """Standard deviation of each input channel, after scaling."""
    resize: int | None = Field(None, ge=1)
    """Length to which the shorter side is scaled [pixels]; at least the image size of the model."""
