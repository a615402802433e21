"""The config.json that Hugging Face and timm write beside a checkpoint: what weights do not show."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.files import read_text
from planner.schema.architecture import Activation, Pooling

CONFIG = "config.json"

# Heads of timm's and DeiT's ViTs by the size in the architecture's name.
_HEADS_BY_SIZE = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}
# timm's EVAs whose positions are learned, and its ViTs that have rotary positions.
_LEARNED, _ROTARY = re.compile(r"eva_(?:giant|large)"), re.compile(r"eva02|_rope_|dinov3|vit_pe_")
_SIZE = re.compile(rf"(?:vit|deit)\w*_({'|'.join(_HEADS_BY_SIZE)})(?:_|$)")
# A placeholder of Hugging Face's for a class without a name.
_PLACEHOLDER = re.compile(r"LABEL_\d+")
# Names of activations in transformers and timm.
_ACTIVATIONS: dict[object, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_POOLING: dict[object, Pooling] = {"token": "class_token", "avg": "mean"}


@dataclass(frozen=True)
class ModelConfig:
    """Settings of a model; None where the file does not say."""

    file: Path
    num_heads: int | None = None
    layer_norm_eps: float | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: Activation | None = None
    pooling: Pooling | None = None
    image_size: tuple[int, int] | None = None
    has_rotary_positions: bool | None = None


def read_config(checkpoint: Path) -> ModelConfig | None:
    """Return the settings in the config.json beside a checkpoint; None if there is none.

    Raises:
        InputError: If the file is no JSON object, or describes a network that ours cannot be.
    """
    file = checkpoint.parent / CONFIG
    if not file.is_file():
        return None
    try:
        data = json.loads(read_text(file))
    except ValueError:
        raise InputError(f"{file}: must be JSON, as the checkpoint's library wrote it.") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: must be a JSON object, got {type(data).__name__}.")
    return _from_timm(file, data) if isinstance(data.get("pretrained_cfg"), dict) else _from_huggingface(file, data)


def _from_timm(file: Path, data: Mapping[str, Any]) -> ModelConfig:
    pretrained: Mapping[str, Any] = data["pretrained_cfg"]
    architecture = str(data.get("architecture", ""))
    size = _SIZE.search(architecture)
    arguments = data.get("model_args")
    arguments = arguments if isinstance(arguments, dict) else {}
    given = arguments.get("num_heads")
    return ModelConfig(
        file=file,
        num_heads=_whole(file, "num_heads", given) or (_HEADS_BY_SIZE[size.group(1)] if size else None),
        classes=_names(pretrained.get("label_names")),
        mean=_numbers(file, "mean", pretrained.get("mean")),
        std=_numbers(file, "std", pretrained.get("std")),
        activation=_activation(file, "act_layer", arguments.get("act_layer"))
        or ("quick_gelu" if "quickgelu" in architecture else None),
        pooling=_pooling(file, arguments.get("global_pool", data.get("global_pool"))),
        image_size=_sides(file, "img_size", arguments.get("img_size")) or _rectangle(pretrained.get("input_size")),
        has_rotary_positions=_has_rotary_positions(architecture, arguments.get("use_rot_pos_emb")),
    )


def _from_huggingface(file: Path, data: Mapping[str, Any]) -> ModelConfig:
    eps = data.get("layer_norm_eps")
    if eps is not None and not (isinstance(eps, float) and eps > 0):
        raise InputError(f"{file}: layer_norm_eps must be a number above 0, got {eps!r}.")
    labels = data.get("id2label")
    names = None
    if isinstance(labels, dict) and sorted(labels) == sorted(str(i) for i in range(len(labels))):
        names = _names([labels[str(i)] for i in range(len(labels))])
    return ModelConfig(
        file=file,
        num_heads=_whole(file, "num_attention_heads", data.get("num_attention_heads")),
        layer_norm_eps=eps,
        classes=names,
        activation=_activation(file, "hidden_act", data.get("hidden_act")),
        image_size=_sides(file, "image_size", data.get("image_size")),
    )


def _activation(file: Path, key: str, value: object) -> Activation | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        raise InputError(f"{file}: {key} must be one of {', '.join(map(str, _ACTIVATIONS))}, got {value!r}.")
    return _ACTIVATIONS[value]


def _pooling(file: Path, value: object) -> Pooling | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in _POOLING:
        raise InputError(f"{file}: global_pool must be 'token' or 'avg', as our network can pool, got {value!r}.")
    return _POOLING[value]


def _sides(file: Path, key: str, value: object) -> tuple[int, int] | None:
    """Return height and width of a size that is one side of a square, or both."""
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(f"{file}: {key} must be a whole number from 1 on, or two of them, got {value!r}.")
    return sides[0], sides[1]


def _rectangle(input_size: object) -> tuple[int, int] | None:
    """Return the sides of an input (channels, height, width) that differ: a square may be that of another training."""
    if not isinstance(input_size, list) or len(input_size) != 3 or input_size[1] == input_size[2]:
        return None
    return tuple(input_size[1:]) if all(isinstance(side, int) and side > 0 for side in input_size) else None


def _has_rotary_positions(architecture: str, stated: object) -> bool | None:
    """Return whether an architecture of timm's has rotary positions, if it is known."""
    if isinstance(stated, bool):
        return stated
    if _ROTARY.search(architecture):
        return True
    return False if _LEARNED.match(architecture) else None


def _names(labels: object) -> tuple[str, ...] | None:
    """Return class names, unless they are missing or placeholders."""
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        return None
    return None if all(_PLACEHOLDER.fullmatch(name) for name in labels) else tuple(labels)


def _whole(file: Path, key: str, value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise InputError(f"{file}: {key} must be a whole number from 1 on, got {value!r}.")
    return value if isinstance(value, int) else None


def _numbers(file: Path, key: str, value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or not all(isinstance(number, (int, float)) for number in value):
        raise InputError(f"{file}: {key} must be a list of numbers, got {value!r}.")
    return tuple(float(number) for number in value)
