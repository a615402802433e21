"""card.json: a model that can be split, with everything needed to use it and to train it again."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_serializer, model_validator

from planner.schema.architecture import Architecture, shown
from planner.schema.base import Document, Frozen
from planner.schema.data import (
    MAX_SIDE,
    Data,
    Preprocessing,
    Spectrogram,
    height_and_width,
    spectrogram_of,
)
from planner.schema.quantities import (
    MAX_CLASSES,
    Coefficient,
    RandomSeed,
)
from planner.schema.text import FilePath, Name, Text, check_names_differ


class TrainingRecord(Frozen):
    """Training of the weights: AdamW with a cosine schedule, on shifted, rotated and perhaps mirrored images."""

    epochs: int = Field(ge=1, le=10**6)
    """Passes over all training images."""
    batch_size: int = Field(ge=1, le=10**6)
    """Images of one training step."""
    learning_rate: float = Field(gt=0, le=1000)
    """Peak learning rate, after the warm-up."""
    weight_decay: float = Field(ge=0, le=1000)
    """Weight decay of AdamW."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of a label that is spread over all classes."""
    max_shift_pixels: float = Field(ge=0, le=MAX_SIDE)
    """Largest random shift of an image [pixels]."""
    max_rotation_degrees: float = Field(ge=0, le=360)
    """Largest random rotation of an image [degrees]."""
    mirror: bool = False
    """True if half of the images are mirrored, left to right."""
    seed: RandomSeed
    """Seed of all random draws."""


class Origin(Frozen):
    """File that the weights were converted from."""

    file: Text
    """Name of the file."""
    sha256: Text
    """SHA-256 of the file."""


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return "0", "1", ...: the names of classes that have no names of their own."""
    return tuple(str(i) for i in range(count))


def _names(value: Any) -> Any:
    """Turn a number of classes into their names; leave anything else to the field's check."""
    if isinstance(value, bool) or not isinstance(value, int):
        return tuple(value) if isinstance(value, list) else value
    if not 1 <= value <= MAX_CLASSES:
        raise ValueError(f"must be names or a number from 1 to {MAX_CLASSES}, got {value}")
    return numbered_classes(value)


# For editors: names, or a number of classes.
_NAMES_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1, "maxLength": 200}},
            {"type": "integer", "minimum": 1, "maximum": MAX_CLASSES},
        ]
    }
)
ClassNames = Annotated[
    tuple[Name, ...], Field(min_length=1, max_length=MAX_CLASSES), BeforeValidator(_names), _NAMES_SCHEMA
]
ParameterName = Annotated[str, Field(max_length=500)]
# From our name of a parameter, with {l} for the block, to its name in the file: three where q, k and v are apart, two
# where the gates and the values of a gated MLP are.
NameMap = dict[
    ParameterName,
    ParameterName | tuple[ParameterName, ParameterName] | tuple[ParameterName, ParameterName, ParameterName],
]


class ModelCard(Document):
    """Card of a model, which lies beside its checkpoint if there is one.

    A card without weights is enough to plan costs, one without data to run the model.
    """

    model: Name
    """Name of the model."""
    description: Text
    """Description of the model, for people."""
    architecture: Architecture
    """Sizes of the model."""
    classes: ClassNames
    """Names of the classes in the order of the outputs, or their number: then they are called "0", "1" ..."""
    data: Data | None = None
    """Source of the images; needed to profile and to execute."""
    preprocessing: Preprocessing | None = None
    """Preprocessing of the pixels; needed with `data`."""
    training: TrainingRecord | None = None
    """Training of the weights; retraining shifts, rotates and mirrors images in the same way."""
    weights: FilePath | None = None
    """File of the checkpoint, beside the card; without one, costs can be planned but nothing can be run."""
    weights_sha256: Text | None = None
    """SHA-256 of the checkpoint; needed with `weights`."""
    parameter_names: Literal["timm", "huggingface", "torchvision"] | NameMap = "timm"
    """Naming scheme of the checkpoint's parameters, or a map from our names to those in the file."""
    origin: Origin | None = None
    """File that `planner import` read."""
    accuracy: dict[Literal["train", "test"], Coefficient] | None = None
    """Accuracy of the whole model on its training part and on its whole test part, 0..1."""
    licence: Text | None = None
    """Licence of the weights."""

    @field_serializer("classes", when_used="json")
    def _as_written(self, classes: tuple[str, ...]) -> tuple[str, ...] | int:
        return len(classes) if self.classes_are_numbered else classes

    @property
    def classes_are_numbered(self) -> bool:
        """Return whether the classes have no names of their own."""
        return self.classes == numbered_classes(len(self.classes))

    @model_validator(mode="after")
    def _belongs_together(self) -> "ModelCard":
        if not self.classes_are_numbered:
            check_names_differ(self.classes, "classes")
        if (self.weights is None) != (self.weights_sha256 is None):
            got = "weights" if self.weights_sha256 is None else "weights_sha256"
            raise ValueError(f"a card must have both weights and weights_sha256 or neither, got {got} alone")
        if self.data is not None and self.preprocessing is None:
            raise ValueError("a card with data must have preprocessing too, got data alone")
        if self.preprocessing is not None:
            self._check_preprocessing(self.preprocessing)
        spectrogram = spectrogram_of(self.data)
        if spectrogram is not None:
            self._check_spectrogram(spectrogram)
        return self

    def _check_spectrogram(self, spectrogram: Spectrogram) -> None:
        try:
            spectrogram.check_size(*self.architecture.image_sides)
        except ValueError as error:
            raise ValueError(f"data: {error}") from None
        if self.architecture.in_channels != 1:
            raise ValueError(f"data: spectrograms have one channel, got in_channels {self.architecture.in_channels}")
        if self.preprocessing is not None and self.preprocessing.resize is not None:
            raise ValueError("preprocessing: resize must be left out with spectrograms, which have the model's size")

    def _check_preprocessing(self, preprocessing: Preprocessing) -> None:
        channels, sides = self.architecture.in_channels, self.architecture.image_sides
        for key in ("mean", "std"):
            if (got := len(getattr(preprocessing, key))) != channels:
                raise ValueError(f"preprocessing: {key} must have an entry for each of {channels} channels, got {got}")
        resize = preprocessing.resize
        if not isinstance(resize, int | tuple):
            return
        if any(a < b for a, b in zip(height_and_width(resize), sides, strict=True)):
            raise ValueError(
                f"preprocessing: resize must be >= image_size {shown(self.architecture.image_size)}, of which it is "
                f"cropped, got {shown(resize)}"
            )

    def with_paths_in(self, folder: Path) -> "ModelCard":
        """Return a copy of the card whose data paths begin with the path of its folder."""
        if self.data is None:
            return self
        return self.replace(data=self.data.with_paths_in(folder))
