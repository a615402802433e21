"""evaluation.json: the measured accuracies and sizes of a bundle."""

from pydantic import Field

from planner.schema.base import Document, Frozen
from planner.schema.quantities import Count, Macs, Params, Share
from planner.schema.text import Name


class Size(Frozen):
    """Size of a model: parameters, and MACs for one image."""

    params: Params
    """Number of parameters."""
    macs: Macs
    """MACs for one image [MAC]; 1 MAC is 2 FLOPs."""


class Evaluation(Document):
    """Accuracies of a bundle on the test part, and its sizes, which are those of the plan."""

    num_images: int = Field(ge=1, le=10**12)
    """Number of images of the test part that were measured."""
    num_calibration_images: Count = 0
    """Number of other images of the test part, which calibrate predictions; 0 if the card has a validation part."""
    whole_accuracy: Share
    """Accuracy of the whole model, 0..1."""
    fused_accuracy: Share
    """Accuracy of the fused answer of the fleet, 0..1."""
    whole_by_class: dict[Name, Share]
    """Accuracy of the whole model on each class."""
    fused_by_class: dict[Name, Share]
    """Accuracy of the fused answer on each class."""
    without_device: dict[Name, Share]
    """Fused accuracy without each of the devices."""
    without_device_by_class: dict[Name, dict[Name, Share]]
    """Fused accuracy on each class, without each of the devices."""
    whole: Size
    """Size of the whole model."""
    devices: dict[Name, Size]
    """Size of each device's sub-model."""
