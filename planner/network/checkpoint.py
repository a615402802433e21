"""Readers of model cards and their weights: strict, and without unpickling.

Formats: safetensors; .pth, .pt and .bin, of which torch reads the tensors and refuses all else;
.npz of plain arrays. Tensors of other float types become float32.
"""

import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from planner.errors import InputError
from planner.library import folder
from planner.network.naming_schemes import Scheme, check_map, rename_tensors, scheme_of
from planner.network.vit import Shape, VisionTransformer
from planner.schema import ModelCard, did_you_mean, read_document

CARD = "card.json"
WEIGHTS = "weights.safetensors"

# Keys under which a training script, such as DeiT's, may have put its tensors.
_WRAPPERS = ("model", "state_dict")


def find_card(name: str) -> Path:
    """Return the path of a model's card, given that path or the name of a shipped model.

    Raises:
        InputError: If there is no such model.
    """
    if name.endswith(".json") or "/" in name:
        return Path(name)
    known = sorted(path.parent.name for path in folder("models").glob(f"*/{CARD}"))
    if name not in known:
        raise InputError(
            f"model must be a card's path or one of {', '.join(known)}, got {name!r}{did_you_mean(name, known) or '.'}"
        )
    return folder("models") / name / CARD


def load_card(name: str) -> ModelCard:
    """Read a model's card; its paths, which are relative to it, become relative to the working folder."""
    path = find_card(name)
    return read_document(path, ModelCard).with_paths_in(path.parent)


def load_model(name: str) -> tuple[ModelCard, VisionTransformer]:
    """Return a model's card and the model itself, in eval mode.

    Raises:
        InputError: If the card has no weights, or they are not the card's: another hash, a missing or an additional
            tensor.
    """
    path, card = find_card(name), load_card(name)
    if card.weights is None or card.weights_sha256 is None:
        raise InputError(
            f"{path}: the card has no weights, so that costs alone can be planned; "
            "make a card with weights by `planner import CHECKPOINT --out FOLDER` and name that."
        )
    model = VisionTransformer(whole_shape(card))
    load_weights(path.parent / card.weights, model, card.weights_sha256, card.parameter_names)
    return card, model


def whole_shape(card: ModelCard) -> Shape:
    """Return the shape of the whole model of a card."""
    a = card.architecture
    return Shape(
        image_size=a.image_size,
        patch_size=a.patch_size,
        in_channels=a.in_channels,
        num_classes=len(card.classes),
        embed_dim=a.embed_dim,
        head_dim=a.head_dim,
        num_heads=(a.num_heads,) * a.depth,
        hidden_dim=(a.hidden_dim,) * a.depth,
        distilled=a.distilled,
        layer_norm_eps=a.layer_norm_eps,
        stem_channels=a.stem_channels,
    )


def load_weights(path: Path, model: nn.Module, sha256: str, names: str | Scheme = "timm") -> None:
    """Fill a model with a file's tensors, all of them and no others, and set it to eval mode.

    Args:
        path: The file.
        model: Network to fill; it stays as it is where the file is refused.
        sha256: Expected hash of the file.
        names: Naming scheme of the file's parameters: its name, or a map from our names.

    Raises:
        InputError: If the file is missing, damaged, changed, or another network's.
    """
    content = read_content(path)
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise InputError(f"{path}: SHA-256 must be {sha256[:12]}..., got {actual[:12]}...: the file was changed.")
    state, expected = parse(path, content), model.state_dict()
    if isinstance(names, str):
        names = scheme_of(names, state)
    else:
        check_map(names, expected)
    model.load_state_dict(rename_tensors(path, state, expected, names))
    model.eval()


def read_content(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def parse(path: Path, content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their names in it, in float32.

    Args:
        path: Path of the file, whose suffix names the format.
        content: The file's bytes.

    Raises:
        InputError: If the bytes are not of that format, or there is something else than tensors in them.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: must be a {', '.join(_READERS)} file, got {path.suffix or 'no suffix'}.")
    state: dict[str, Tensor] = {}
    for name, value in reader(path, content).items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: must map names to tensors, got {type(value).__name__} at {name!r}.")
        if not value.is_floating_point() or value.layout != torch.strided:
            raise InputError(f"{path}: tensor {name!r} must hold floating-point numbers, got {value.dtype}.")
        state[name] = value.detach().to(torch.float32)
    return state


def _safetensors(path: Path, content: bytes) -> Mapping[Any, Any]:
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise InputError(f"{path}: must be a safetensors file ({error}).") from None


def _torch(path: Path, content: bytes) -> Mapping[Any, Any]:
    try:
        with warnings.catch_warnings():
            # Old files store tensors in a way of which torch warns.
            warnings.simplefilter("ignore")
            # weights_only: nothing in the file is executed, and anything but tensors is refused.
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # A damaged or hostile file can fail anywhere in torch's reader, with any exception.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).strip().rstrip(".")
        raise InputError(f"{path}: must be a checkpoint of tensors and nothing else ({reason}).") from None
    if isinstance(value, dict) and len(value) == 1:
        (key, inner) = next(iter(value.items()))
        value = inner if key in _WRAPPERS else value
    if not isinstance(value, dict):
        raise InputError(f"{path}: must map names to tensors, got {type(value).__name__}.")
    return value


def _npz(path: Path, content: bytes) -> Mapping[Any, Any]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays}
    # np.load of a lone array returns no context manager; an array of objects, or of a type that torch lacks, is a
    # ValueError or TypeError.
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: must be an .npz file of plain arrays ({error}).") from None


_READERS: dict[str, Callable[[Path, bytes], Mapping[Any, Any]]] = {
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".bin": _torch,
    ".npz": _npz,
}
