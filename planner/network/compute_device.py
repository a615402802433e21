"""The CPU or GPU on which networks are trained."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

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


# Smallest weights, by their number of values, for which bfloat16 is faster on a CPU: 256 x 256. The conversions of
# smaller ones take as long as they save.
_MIN_WEIGHT_VALUES = 2**16


def mixed_precision(module: nn.Module, device: torch.device | None = None) -> torch.autocast:
    """Return a context in which matrices are multiplied in bfloat16 where that is faster.

    So on a GPU, and on a CPU with matrix units (Intel AMX) where the module has weights that are large enough.
    Parameters, the residual stream and norms stay float32. Accuracies are measured outside.

    Args:
        module: Network that is to run.
        device: Where it runs; on the CPU unless given.

    Source:
        Mixed precision with float32 weights: Micikevicius et al., arXiv 1710.03740; in bfloat16: Kalamkar et al.,
        arXiv 1905.12322.
    """
    largest = max((p.numel() for p in module.parameters()), default=0)
    kind = "cpu" if device is None else device.type
    is_faster = kind == "cuda" or (largest >= _MIN_WEIGHT_VALUES and _has_matrix_units())
    return torch.autocast(kind, torch.bfloat16, enabled=is_faster)


def in_mixed_precision(module: nn.Module, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function of a network that runs in `mixed_precision`, whichever thread calls it."""

    def run(x: Tensor) -> Tensor:
        # A context of its own for every call: it keeps what it found in the thread.
        with mixed_precision(module):
            return function(x).float()

    return run


def _has_matrix_units() -> bool:
    """Return whether the CPU multiplies matrices of bfloat16 by itself; older versions of torch do not tell."""
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16", False))
