"""Engine of a device, ONNX Runtime or C where it does not run, and whether it is part of a firmware."""

from planner.library import load_kinds
from planner.schema import Device, DeviceKind, Engine


def engine_of(device: Device) -> Engine:
    """Return the engine of a device: its own, else its kind's, else ONNX Runtime."""
    if device.engine is not None:
        return device.engine
    card = _card_of(device)
    return "onnxruntime" if card is None else card.engine


def is_microcontroller(device: Device) -> bool:
    """Return whether a device runs a firmware: its weights are read in flash, by its own budget or its kind's card."""
    card = _card_of(device)
    on_card = card is not None and (card.storage is not None or card.storage_overhead is not None)
    return on_card or device.storage_budget is not None


def _card_of(device: Device) -> DeviceKind | None:
    return None if device.kind is None else load_kinds().get(device.kind)
