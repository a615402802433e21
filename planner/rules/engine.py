"""Engine that runs a device's sub-model: ONNX Runtime, or C where it does not run."""

from planner.library import load_kinds
from planner.schema import Device, Engine


def engine_of(device: Device) -> Engine:
    """Return the engine of a device: its own, else its kind's, else ONNX Runtime."""
    if device.engine is not None:
        return device.engine
    card = None if device.kind is None else load_kinds().get(device.kind)
    return "onnxruntime" if card is None else card.engine
