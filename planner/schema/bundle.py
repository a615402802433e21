"""manifest.json: the content of a bundle."""

from pydantic import Field

from planner.schema.base import Document
from planner.schema.quantities import Count, NumEpochs, RandomSeed
from planner.schema.text import FilePath, Name, Sha256


class Manifest(Document):
    """Content of a bundle, and how it was made."""

    model: FilePath
    """The model that was split: name of a shipped model, or path of a card."""
    recipe: Name
    """Training recipe that recovered the accuracy: default, ed-vit or devit."""
    epochs: Count | NumEpochs
    """Epochs of retraining: how often each sub-model saw as many images as there are; may be a part of one, or 0."""
    seed: RandomSeed
    """Seed of all random draws."""
    teacher_sha256: Sha256
    """SHA-256 of the teacher's weights: the whole model's, unless another teacher was named."""
    subset_teachers: bool = Field(False, exclude_if=lambda subset_teachers: not subset_teachers)
    """The teacher was fine-tuned for the classes of each device before."""
    devices: dict[Name, FilePath]
    """File of the sub-model of each used device."""
    sha256: dict[FilePath, Sha256]
    """SHA-256 of each file; a file that does not match is refused."""
