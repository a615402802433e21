"""manifest.json: what a bundle holds."""

from planner.schema.base import Document


class Manifest(Document):
    """What a bundle holds, and how it was made."""

    model: str
    """The model that was split: a shipped one's name, or its card's path."""
    recipe: str
    """How accuracy was got back: default, ed-vit or devit."""
    epochs: int
    """How often each sub-model saw as many images as there are."""
    seed: int
    """Of everything that was drawn."""
    teacher_sha256: str
    """Of the weights that were learned from: the whole model's, unless another one taught."""
    devices: dict[str, str]
    """The file of each used device's sub-model."""
    sha256: dict[str, str]
    """The hash of each file; one that does not match is refused."""
