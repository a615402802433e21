"""evaluation.json: the measured accuracies and sizes of a bundle."""

from pydantic import Field

from planner.schema.base import Document, Frozen


class Size(Frozen):
    """Size of a model: parameters, and MACs for one image."""

    params: int = Field(ge=0)
    """Number of parameters."""
    macs: int = Field(ge=0)
    """MACs for one image [MAC]; 1 MAC is 2 FLOPs."""


class Evaluation(Document):
    """Accuracies of a bundle on the test part, and its sizes, which are those of the plan."""

    num_images: int
    """Number of images of the test part that were measured."""
    num_calibration_images: int = Field(0, ge=0)
    """Number of other images of the test part, which calibrate predictions; 0 if the card has a validation part."""
    whole_accuracy: float
    """Accuracy of the whole model, 0..1."""
    fused_accuracy: float
    """Accuracy of the fused answer of the fleet, 0..1."""
    whole_by_class: dict[str, float]
    """Accuracy of the whole model on each class."""
    fused_by_class: dict[str, float]
    """Accuracy of the fused answer on each class."""
    without_device: dict[str, float]
    """Fused accuracy without each of the devices."""
    without_device_by_class: dict[str, dict[str, float]]
    """Fused accuracy on each class, without each of the devices."""
    whole: Size
    """Size of the whole model."""
    devices: dict[str, Size]
    """Size of each device's sub-model."""
