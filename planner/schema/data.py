"""Sources of a model's images, and the preprocessing of their pixels.

Paths are relative to the card. Images have 8 bits a channel, spectrograms of sounds are float32.
"""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from planner.errors import quoted
from planner.schema.base import Frozen
from planner.schema.quantities import Coefficient, Positive
from planner.schema.text import FilePath, Text

MAX_SIDE = 16_384
# Of all frames together, before they become a spectrogram: some ten copies of them are in memory at once.
MAX_SPECTROGRAM_VALUES = 16_000_000
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
# Of a square, or height and width.
Sides = Side | tuple[Side, Side]
# As numpy's generators take them.
SplitSeed = Annotated[int, Field(ge=0, lt=2**32)]
StoredPart = Literal["train", "validation", "test"]
_Source = TypeVar("_Source", bound="_Files")


def height_and_width(sides: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a size that is one side of a square, or both."""
    return sides if isinstance(sides, tuple) else (sides, sides)


class SklearnDigits(Frozen):
    """Source: the 1,797 handwritten digits that come with scikit-learn."""

    source: Literal["sklearn-digits"]
    """Kind of source."""
    test_share: float = Field(gt=0, lt=1)
    """Share of the images that is the test part."""
    split_seed: SplitSeed
    """Seed of the random split."""
    licence: Text | None = None
    """Licence of the images."""
    citation: Text | None = None
    """Reference to cite."""

    @property
    def has_test_part(self) -> bool:
        """Return whether the test part is stored apart from the training part."""
        return False

    @property
    def has_validation_part(self) -> bool:
        """Return whether a validation part is stored."""
        return False

    def with_paths_in(self, folder: Path) -> "SklearnDigits":
        """Return the source unchanged: it has no paths."""
        return self


class _Files(Frozen):
    """Base of sources with a training part, a test part stored apart or to be split off, and perhaps a validation part.

    Neither of the last two shares an image with another part.
    """

    train_paths: ClassVar[tuple[str, ...]]
    validation_paths: ClassVar[tuple[str, ...]]
    test_paths: ClassVar[tuple[str, ...]]

    test_share: float | None = Field(None, gt=0, lt=1)
    """Share of the images to split off as the test part, where none is stored apart."""
    split_seed: SplitSeed | None = None
    """Seed of that random split."""
    licence: Text | None = None
    """Licence of the images."""
    citation: Text | None = None
    """Reference to cite."""

    @property
    def has_test_part(self) -> bool:
        """Return whether the test part is stored apart from the training part."""
        return self.test_share is None

    @property
    def has_validation_part(self) -> bool:
        """Return whether a validation part is stored."""
        return getattr(self, self.validation_paths[0]) is not None

    def paths_of(self, part: StoredPart) -> tuple[Path, ...]:
        """Return the paths of a part that is stored."""
        keys = {"train": self.train_paths, "validation": self.validation_paths, "test": self.test_paths}[part]
        return tuple(Path(getattr(self, key)) for key in keys)

    @model_validator(mode="after")
    def _has_one_test_part(self: _Source) -> _Source:
        for keys in (self.test_paths, self.validation_paths, ("test_share", "split_seed")):
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

    @model_validator(mode="after")
    def _has_its_own_validation_part(self: _Source) -> _Source:
        key = self.validation_paths[0]
        images = getattr(self, key)
        for other in (self.train_paths[0], self.test_paths[0]):
            others = getattr(self, other)
            if None not in (images, others) and Path(images) == Path(others):
                raise ValueError(f"must have other images under {key} than under {other}, got {images!r} for both")
        return self

    def with_paths_in(self: _Source, folder: Path) -> _Source:
        """Return a copy of the source whose paths begin with the path of the card's folder."""
        keys = (*self.train_paths, *self.validation_paths, *self.test_paths)
        paths = {key: getattr(self, key) for key in keys}
        return self.replace(**{key: str(folder / path) for key, path in paths.items() if path})


class IdxFiles(_Files):
    """Source: files in MNIST's IDX format, gzipped or not: bytes behind a header of sizes."""

    train_paths = ("train_images", "train_labels")
    validation_paths = ("validation_images", "validation_labels")
    test_paths = ("test_images", "test_labels")

    source: Literal["idx"]
    """Kind of source."""
    train_images: FilePath
    """File of the training part's images."""
    train_labels: FilePath
    """File of the training part's labels."""
    validation_images: FilePath | None = None
    """File of the images of a validation part, which calibrates predictions; half of the test part unless given."""
    validation_labels: FilePath | None = None
    """File of the validation part's labels."""
    test_images: FilePath | None = None
    """File of the test part's images."""
    test_labels: FilePath | None = None
    """File of the test part's labels."""


class _PathOfEachPart(_Files):
    """Base of sources with one file, or one folder, for each part."""

    train_paths = ("train",)
    validation_paths = ("validation",)
    test_paths = ("test",)

    train: FilePath
    """File or folder of the training part."""
    validation: FilePath | None = None
    """That of a validation part, which calibrates predictions; half of the test part unless given."""
    test: FilePath | None = None
    """That of the test part."""


class NpzFiles(_PathOfEachPart):
    """Source: NumPy archives, images N x H x W or N x H x W x channels of uint8, labels N of integers."""

    source: Literal["npz"]
    """Kind of source."""
    images_key: Text = "images"
    """Name of the array of images."""
    labels_key: Text = "labels"
    """Name of the array of labels."""


class ImageFolders(_PathOfEachPart):
    """Source: a folder for each part, and in it a folder of image files for each class.

    The folders have the names of the card's classes; if the classes are only numbered, the sorted names of the
    training part's folders stand for them.
    """

    source: Literal["folder"]
    """Kind of source."""
    folders_by_number: bool = False
    """True if numbers in folders' names ("9", "10") are in their order in the model's outputs, not in that of text."""


class Spectrogram(Frozen):
    """Log-mel spectrogram of a sound: the model's image, mel bands along its height and time along its width."""

    sample_rate: int = Field(ge=1000, le=384_000)
    """Samples in a second of the stored sounds."""
    window_ms: float = Field(25.0, ge=2, le=1000)
    """Length of the window of a frame [ms]."""
    hop_ms: float = Field(10.0, ge=1, le=1000)
    """Time from one frame to the next [ms]; all of the image's width together should hold a whole clip."""

    def check_size(self, bands: int, frames: int) -> None:
        """Refuse spectrograms of so many mel bands and frames that would take too much memory.

        Raises:
            ValueError: If there are too many values.
        """
        samples = self.sample_rate * self.window_ms / 1000
        if samples * max(bands, frames) > MAX_SPECTROGRAM_VALUES:
            raise ValueError(
                f"spectrogram must take at most {MAX_SPECTROGRAM_VALUES:,} values, got {frames} frames and {bands} mel "
                f"bands of {samples:g} samples"
            )


class AudioFolders(_PathOfEachPart):
    """Source: a folder for each part, and in it a folder of .wav files for each class; see `folder` for their names."""

    source: Literal["audio-folder"]
    """Kind of source."""
    folders_by_number: bool = False
    """True if numbers in folders' names ("9", "10") are in their order in the model's outputs, not in that of text."""
    spectrogram: Spectrogram
    """Spectrograms that are made of the sounds."""


class AudioArrays(_PathOfEachPart):
    """Source: NumPy archives, samples N x T of int16 or float32 (from -1 to 1), labels N of integers.

    Shorter clips have zeros behind them.
    """

    source: Literal["audio-npz"]
    """Kind of source."""
    samples_key: Text = "samples"
    """Name of the array of samples."""
    labels_key: Text = "labels"
    """Name of the array of labels."""
    spectrogram: Spectrogram
    """Spectrograms that are made of the sounds."""


Data = Annotated[
    SklearnDigits | IdxFiles | NpzFiles | ImageFolders | AudioFolders | AudioArrays, Field(discriminator="source")
]


def spectrogram_of(data: Data | None) -> Spectrogram | None:
    """Return the spectrograms that a source's images are, if its samples are sounds."""
    return data.spectrogram if isinstance(data, AudioFolders | AudioArrays) else None


def is_audio(data: Data | None) -> bool:
    """Return whether a source's images are spectrograms, which are float32 and not bytes."""
    return spectrogram_of(data) is not None


def _resize_of_known_form(value: object) -> object:
    """Refuse what is neither a number nor two of them nor the one word; numbers are left to the field's own check."""
    is_wrong = len(value) != 2 if isinstance(value, list | tuple) else isinstance(value, dict)
    if is_wrong or (isinstance(value, str) and value != "letterbox"):
        raise ValueError(f'must be a number of pixels, [height, width] or "letterbox", got {quoted(value)}')
    return tuple(value) if isinstance(value, list) else value


class Preprocessing(Frozen):
    """Preprocessing of pixels, or of a spectrogram's values: (pixel * scale - mean) / std, the last two per channel.

    With `resize`, images are first scaled, then the middle is cropped, and what is left of the model's image around a
    letterboxed one has the mean's colour; without it, they must have the model's size already.
    """

    scale: float = Field(1 / 255, gt=0, le=1e15)
    """Factor on pixel values, which are 0..255."""
    mean: tuple[Coefficient, ...]
    """Mean of each input channel, after scaling."""
    std: tuple[Positive, ...]
    """Standard deviation of each input channel, after scaling."""
    resize: Annotated[Sides | Literal["letterbox"], BeforeValidator(_resize_of_known_form)] | None = None
    """Length of the shorter side [pixels], or height and width to stretch to, none below the model's image size; or
    "letterbox": all of an image, in its proportions."""

    @property
    def letterbox_colour(self) -> tuple[float, ...]:
        """Value of each channel around a letterboxed image, as pixels are stored."""
        return tuple(mean / self.scale for mean in self.mean)

    def resized(self, height: int, width: int, sides: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of an image after scaling, before its middle is cropped or it is letterboxed.

        Args:
            height: Height of the image.
            width: Width of the image.
            sides: Height and width of the model's image.
        """
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        if self.resize == "letterbox":
            longest = max(Fraction(height, sides[0]), Fraction(width, sides[1]))
            return max(1, int(height / longest)), max(1, int(width / longest))
        shorter = min(height, width)
        return max(self.resize, self.resize * height // shorter), max(self.resize, self.resize * width // shorter)
