"""The CPU or GPU on which networks are trained."""

import re

import torch

from planner.errors import InputError


def check_device(name: str) -> torch.device:
    """Return the device to train on.

    Raises:
        InputError: If the name is not "cpu" or "cuda[:n]", or there is no such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device: must be cpu, cuda or cuda:n, got {name!r}.")
    device, count = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"device {name!r}: must be there, got {count} CUDA devices that torch can use; try cpu.")
    return device


def autocast(device: torch.device) -> torch.autocast:
    """Return the context of a forward pass: on a GPU, matrices are multiplied in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
