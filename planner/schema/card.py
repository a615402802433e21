"""card.json: a model that can be split, and everything needed to use and to make it again."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_serializer, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.data import Data, Preprocessing
from planner.schema.fleet import Name

MAX_NUMBERED_CLASSES = 100_000


class Architecture(Frozen):
    """A plain ViT: sizes of the whole model. A distilled one has a second token and head layer, as DeiT's.

    With `stem_channels`, so many 3x3 convolutions halve the image's sides, each to these channels, before what is
    left of a patch is projected.
    """

    image_size: int = Field(ge=1)
    """Side of the image [pixels]."""
    patch_size: int = Field(ge=1)
    """Side of a patch [pixels]; it divides the image's."""
    in_channels: int = Field(ge=1)
    """Colours: 1 or 3."""
    embed_dim: int = Field(ge=1)
    """Width of a token, of the residual stream."""
    depth: int = Field(ge=1)
    """Blocks."""
    num_heads: int = Field(ge=1)
    """Heads of each block."""
    head_dim: int = Field(ge=1)
    """Width of a head."""
    hidden_dim: int = Field(ge=1)
    """Hidden channels of each block's MLP."""
    distilled: bool = False
    """Whether there is a distillation token and its head layer."""
    layer_norm_eps: float = Field(1e-6, gt=0)
    """Of all layer norms."""
    stem_channels: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Channels of each convolution of a stem; none unless given."""

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> "Architecture":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size {self.patch_size}, got {self.image_size}")
        halved = 2 ** len(self.stem_channels)
        if self.patch_size % halved:
            raise ValueError(
                f"patch_size must be a multiple of {halved}, as each of {len(self.stem_channels)} stem_channels "
                f"halves the image's sides, got {self.patch_size}"
            )
        return self


class TrainingRecord(Frozen):
    """How the weights were made: AdamW with a cosine schedule, random small shifts and rotations, perhaps mirrored."""

    epochs: int = Field(ge=1)
    """How often it sees all images."""
    batch_size: int = Field(ge=1)
    """Images of a step."""
    learning_rate: float = Field(gt=0)
    """The highest, after warming up."""
    weight_decay: float = Field(ge=0)
    """AdamW's."""
    label_smoothing: float = Field(ge=0, lt=1)
    """The share of a label that is spread over all classes."""
    max_shift_pixels: float = Field(ge=0)
    """The furthest that an image is moved [pixels]."""
    max_rotation_degrees: float = Field(ge=0)
    """The furthest that an image is turned [degrees]."""
    mirror: bool = False
    """Whether half of the images are mirrored, left to right."""
    seed: int = Field(ge=0)
    """Of everything that is drawn."""


class Origin(Frozen):
    """The file that the weights were converted from."""

    file: str
    """Its name."""
    sha256: str
    """Its hash."""


def numbered(count: int) -> tuple[str, ...]:
    """Return "0", "1", ...: the names of classes that have none."""
    return tuple(str(i) for i in range(count))


def _names(value: Any) -> Any:
    """Turn a number of classes into their names; leave anything else to the field's check."""
    if isinstance(value, bool) or not isinstance(value, int):
        return tuple(value) if isinstance(value, list) else value
    if not 1 <= value <= MAX_NUMBERED_CLASSES:
        raise ValueError(f"must be names or a number from 1 to {MAX_NUMBERED_CLASSES}, got {value}")
    return numbered(value)


# For editors: both ways to say what the classes are.
_NAMES_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1, "maxLength": 200}},
            {"type": "integer", "minimum": 1, "maximum": MAX_NUMBERED_CLASSES},
        ]
    }
)
ClassNames = Annotated[tuple[Name, ...], Field(min_length=1), BeforeValidator(_names), _NAMES_SCHEMA]
# Our name of a parameter, {l} for the block -> its name in the file, or its names where q, k and v are apart.
NameMap = dict[str, str | tuple[str, str, str]]


class ModelCard(Document):
    """The card of a model, beside its checkpoint if it has one.

    Without weights it is good for planning costs; without data, for running the model.
    """

    model: Name
    """The model's name."""
    description: str
    """What it is, for people."""
    architecture: Architecture
    """Its sizes."""
    classes: ClassNames
    """Names of the classes in the order of the outputs, or how many there are: then they are "0", "1" ..."""
    data: Data | None = None
    """Where its images are; needed to profile and to execute."""
    preprocessing: Preprocessing | None = None
    """What is done to pixels; needed with `data`."""
    training: TrainingRecord | None = None
    """How its weights were made; retraining moves and mirrors images as this says."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """The checkpoint beside the card; without it, costs can be planned and nothing run."""
    weights_sha256: str | None = None
    """Its hash; needed with `weights`."""
    parameter_names: Literal["timm", "huggingface", "torchvision"] | NameMap = "timm"
    """Whose names the checkpoint has; or a map of our names to the file's."""
    origin: Origin | None = None
    """The file that `planner import` read."""
    accuracy: dict[Literal["train", "test"], float] | None = None
    """Of the whole model on its training and test part, 0..1."""
    licence: str | None = None
    """Of the weights."""

    @field_serializer("classes", when_used="json")
    def _as_written(self, classes: tuple[str, ...]) -> tuple[str, ...] | int:
        return len(classes) if self.classes_are_numbered else classes

    @property
    def classes_are_numbered(self) -> bool:
        """Whether the classes have no names of their own."""
        return self.classes == numbered(len(self.classes))

    @model_validator(mode="after")
    def _belongs_together(self) -> "ModelCard":
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f"classes: names must differ, {twice!r} is given twice")
        for one, other in (("weights", "weights_sha256"), ("data", "preprocessing")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                got = one if getattr(self, other) is None else other
                raise ValueError(f"a card must have both {one} and {other} or neither, got {got} alone")
        if self.preprocessing is not None:
            self._check_preprocessing(self.preprocessing)
        return self

    def _check_preprocessing(self, preprocessing: Preprocessing) -> None:
        channels, size = self.architecture.in_channels, self.architecture.image_size
        for key in ("mean", "std"):
            if (got := len(getattr(preprocessing, key))) != channels:
                raise ValueError(f"preprocessing: {key} must have an entry for each of {channels} channels, got {got}")
        if preprocessing.resize is not None and preprocessing.resize < size:
            raise ValueError(
                f"preprocessing: resize must be >= image_size {size}, of which it is cropped, "
                f"got {preprocessing.resize}"
            )

    def seen_from(self, folder: Path) -> "ModelCard":
        """Return the same card with the paths of its data seen from where its folder is seen."""
        if self.data is None:
            return self
        return self.replace(data=self.data.seen_from(folder))
