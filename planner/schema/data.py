"""Where a model's images come from, and what is done to their pixels.

Paths are relative to the card. Images have 8 bits a channel.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from planner.schema.base import Frozen

FilePath = Annotated[str, Field(min_length=1)]
S = TypeVar("S", bound="_Files")


class SklearnDigits(Frozen):
    """The 1,797 handwritten digits that come with scikit-learn."""

    source: Literal["sklearn-digits"]
    """Where from."""
    test_share: float = Field(gt=0, lt=1)
    """The share of images that is the test part."""
    split_seed: int = Field(ge=0)
    """What the split is drawn from."""
    licence: str | None = None
    """Of the images."""
    citation: str | None = None
    """Whom to name."""

    @property
    def has_test_part(self) -> bool:
        """Whether the test part is stored apart from the training part."""
        return False

    def seen_from(self, folder: Path) -> "SklearnDigits":
        """Return the same source: it has no paths."""
        return self


class _Files(Frozen):
    """Files or folders of a training part, and of a test part or what is to be split off as one."""

    train_paths: ClassVar[tuple[str, ...]]
    test_paths: ClassVar[tuple[str, ...]]

    test_share: float | None = Field(None, gt=0, lt=1)
    """The share of images to split off as the test part, where there is none apart."""
    split_seed: int | None = Field(None, ge=0)
    """What that split is drawn from."""
    licence: str | None = None
    """Of the images."""
    citation: str | None = None
    """Whom to name."""

    @property
    def has_test_part(self) -> bool:
        """Whether the test part is stored apart from the training part."""
        return self.test_share is None

    @model_validator(mode="after")
    def _has_one_test_part(self: S) -> S:
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

    def seen_from(self: S, folder: Path) -> S:
        """Return the same source with its paths seen from where a card's folder is seen."""
        paths = {key: getattr(self, key) for key in (*self.train_paths, *self.test_paths)}
        return self.replace(**{key: str(folder / path) for key, path in paths.items() if path})


class IdxFiles(_Files):
    """MNIST's format, gzipped or not: bytes behind a header of sizes."""

    train_paths = ("train_images", "train_labels")
    test_paths = ("test_images", "test_labels")

    source: Literal["idx"]
    """Where from."""
    train_images: FilePath
    """The training part's images, a file."""
    train_labels: FilePath
    """Their labels."""
    test_images: FilePath | None = None
    """The test part's images."""
    test_labels: FilePath | None = None
    """Their labels."""


class NpzFiles(_Files):
    """Numpy archives: images N x H x W or N x H x W x channels of uint8, labels N of integers."""

    train_paths = ("train",)
    test_paths = ("test",)

    source: Literal["npz"]
    """Where from."""
    train: FilePath
    """The training part, a file."""
    test: FilePath | None = None
    """The test part."""
    images_key: str = "images"
    """The name of the images' array."""
    labels_key: str = "labels"
    """The name of the labels' array."""


class ImageFolders(_Files):
    """A folder for each part, in it a folder of image files for each class.

    The folders have the names of the card's classes; if the classes are only numbered, the
    sorted names of the training part's folders stand for them.
    """

    train_paths = ("train",)
    test_paths = ("test",)

    source: Literal["folder"]
    """Where from."""
    train: FilePath
    """The training part's folder."""
    test: FilePath | None = None
    """The test part's folder."""


Data = Annotated[SklearnDigits | IdxFiles | NpzFiles | ImageFolders, Field(discriminator="source")]


class Preprocessing(Frozen):
    """(pixel * scale - mean) / std, the last two per input channel.

    With `resize`, the shorter side is first made so long [pixels] and the middle is cut out;
    without it, the images must have the model's size already.
    """

    scale: float = Field(1 / 255, gt=0)
    """What a pixel's 0..255 is multiplied by."""
    mean: tuple[float, ...]
    """Of each input channel, after scaling."""
    std: tuple[Annotated[float, Field(gt=0)], ...]
    """Of each input channel, after scaling."""
    resize: int | None = Field(None, ge=1)
    """What the shorter side is made to [pixels]; at least the model's image size."""
