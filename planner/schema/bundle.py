"""manifest.json: the content of a bundle."""

from planner.schema.base import Document


class Manifest(Document):
    """Content of a bundle, and how it was made."""

    model: str
    """The model that was split: name of a shipped model, or path of a card."""
    recipe: str
    """Training recipe that recovered the accuracy: default, ed-vit or devit."""
    epochs: int | float
    """Epochs of retraining: how often each sub-model saw as many images as there are; may be a part of one, or 0."""
    seed: int
    """Seed of all random draws."""
    teacher_sha256: str
    """SHA-256 of the teacher's weights: the whole model's, unless another teacher was named."""
    devices: dict[str, str]
    """File of the sub-model of each used device."""
    sha256: dict[str, str]
    """SHA-256 of each file; a file that does not match is refused."""
