"""The tensors of one network in a checkpoint as trainings write it.

They may lie under a key, beside optimizer, epoch and what else a training needs, perhaps twice: as trained, and as the
moving average of their values (EMA). Their names may begin with those of the modules around the network. None of that
changes the network, and all of it is taken off.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planner.errors import InputError, setting

# Keys of the tensors as trained, of those averaged, and of modules around a network, outermost first.
_TRAINED = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "averaged_model")
_AROUND = ("module.", "_orig_mod.", "base_model.model.", "base_model.", "model.", "backbone.", "net.", "network.")
# What counters and pretraining leave behind; no answer depends on it.
_UNUSED = re.compile(r"(^|\.)(num_batches_tracked|total_ops|total_params|n_averaged|mask_token)$")
_MAX_DEPTH = 4


@dataclass(frozen=True)
class NetworkTensors:
    """Tensors of a network by their names, in float32, and what was taken or left, in sentences."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def network_tensors(path: Path, values: Mapping[Any, Any], ema: bool | None = None) -> NetworkTensors:
    """Return the tensors of the network in a checkpoint.

    Args:
        path: The file, for error messages.
        values: What the file maps names to.
        ema: True for averaged tensors, false for those as trained; unless given, averaged ones where there are any.

    Raises:
        InputError: If there are no such tensors, or anything else among them.
    """
    found, notes = _unwrapped(path, values, ema)
    tensors: dict[str, Tensor] = {}
    left: list[str] = []
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: must map names to tensors, got {type(value).__name__} at {str(name)[:80]!r}.")
        if _UNUSED.search(name):
            left.append(name)
            continue
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta or _repeats(value):
            raise InputError(f"{path}: tensor {name!r} must hold floating-point numbers, got {_kind(value)}.")
        plain = _inner_name(name)
        if plain in tensors:
            raise InputError(f"{path}: tensor {name!r} must be the only {plain!r}, got two of that name.")
        tensors[plain] = value.detach().to(torch.float32)
    if left:
        notes.append(f"Left out, as no answer depends on it: {', '.join(repr(name) for name in left[:3])}.")
    return NetworkTensors(tensors, tuple(notes))


def _repeats(value: Tensor) -> bool:
    """Return whether a tensor has more elements than are stored: one number may stand for any size."""
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _kind(value: Tensor) -> str:
    if value.is_meta:
        return "a tensor without values"
    if value.layout == torch.strided and value.is_floating_point():
        return f"{value.untyped_storage().nbytes()} bytes repeated for shape {tuple(value.shape)}"
    return str(value.dtype).removeprefix("torch.")


def _unwrapped(path: Path, values: Mapping[Any, Any], ema: bool | None) -> tuple[Mapping[Any, Any], list[str]]:
    """Return the innermost mapping of names to tensors under the keys of trainings, and what was chosen."""
    notes: list[str] = []
    is_average = False
    for _ in range(_MAX_DEPTH):
        averaged, trained = _under(values, _AVERAGED), _under(values, _TRAINED)
        chosen, left = (averaged, trained) if ema is not False else (trained, averaged)
        if averaged is None and trained is None:
            break
        if chosen is None:
            chosen, left = left, None
        assert chosen is not None
        is_average |= chosen == averaged
        if averaged is not None:
            others = "" if left is None else f"; those of {left!r} were left"
            notes.append(f"The tensors are those of {chosen!r}{others}.")
        values = values[chosen]
    if ema is True and not is_average:
        raise InputError(f"{path}: must hold a moving average of the weights for {setting('ema')}, got none.")
    if ema is False and is_average:
        raise InputError(f"{path}: must hold the weights as trained, got their moving average alone.")
    return values, notes


def _under(values: Mapping[Any, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if isinstance(values.get(key), Mapping)), None)


def _inner_name(name: str) -> str:
    """Return a tensor's name without those of the modules around the network."""
    while around := next((prefix for prefix in _AROUND if name.startswith(prefix)), None):
        name = name.removeprefix(around)
    return name
