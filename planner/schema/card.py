"""card.json: a model that can be split, and everything needed to use and to make it again."""

from typing import Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Name


class Architecture(Frozen):
    """A plain ViT: sizes of the whole model."""

    image_size: int = Field(ge=1)
    patch_size: int = Field(ge=1)
    in_channels: int = Field(ge=1)
    embed_dim: int = Field(ge=1)
    depth: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    hidden_dim: int = Field(ge=1)

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> "Architecture":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size {self.patch_size}, got {self.image_size}")
        return self


class Data(Frozen):
    """Where the images come from, and which of them are the test part."""

    source: Literal["sklearn-digits"]
    test_share: float = Field(gt=0, lt=1)
    split_seed: int = Field(ge=0)
    licence: str
    citation: str


class Preprocessing(Frozen):
    """(pixel * scale - mean) / std, the last two per input channel."""

    scale: float = Field(gt=0)
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Training(Frozen):
    """How the weights were made: AdamW with a cosine schedule, random small shifts and rotations."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    max_shift_pixels: float = Field(ge=0)
    max_rotation_degrees: float = Field(ge=0)
    seed: int = Field(ge=0)


class ModelCard(Document):
    """The card beside a checkpoint under models/."""

    model: Name
    description: str
    architecture: Architecture
    classes: tuple[Name, ...] = Field(min_length=1)
    data: Data
    preprocessing: Preprocessing
    training: Training
    weights: str
    weights_sha256: str
    accuracy: dict[Literal["train", "test"], float]
    licence: str
