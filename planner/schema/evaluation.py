"""What came out of executing a plan."""

from pydantic import Field

from planner.schema.base import Document, Frozen


class Size(Frozen):
    """Parameters, and MACs for one image."""

    params: int = Field(ge=0)
    """Parameters."""
    macs: int = Field(ge=0)
    """For one image [MAC]; 1 MAC is 2 FLOPs."""


class Evaluation(Document):
    """Accuracies on the test part, and sizes; what was planned is what is there."""

    num_images: int
    """How many images the test part has."""
    whole_accuracy: float
    """Of the whole model, 0..1."""
    fused_accuracy: float
    """Of the fleet's answer, 0..1."""
    whole_by_class: dict[str, float]
    """The whole model's, of each class."""
    fused_by_class: dict[str, float]
    """The fleet's, of each class."""
    without_device: dict[str, float]
    """Fused accuracy with this device missing."""
    without_device_by_class: dict[str, dict[str, float]]
    """The same of each class."""
    whole: Size
    """The whole model's size."""
    devices: dict[str, Size]
    """Each device's sub-model's size."""
