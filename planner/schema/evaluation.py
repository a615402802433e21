"""What came out of executing a plan."""

from pydantic import Field

from planner.schema.base import Document, Frozen


class Size(Frozen):
    """Parameters, and MACs for one image."""

    params: int = Field(ge=0)
    macs: int = Field(ge=0)


class Evaluation(Document):
    """Accuracies on the test part, and sizes; what was planned is what is there."""

    num_images: int
    whole_accuracy: float
    fused_accuracy: float
    whole_by_class: dict[str, float]
    fused_by_class: dict[str, float]
    without_device: dict[str, float]  # fused accuracy with this device missing
    without_device_by_class: dict[str, dict[str, float]]  # the same of each class
    whole: Size
    devices: dict[str, Size]
