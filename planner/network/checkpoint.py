"""Model cards and their weights: read strictly, never unpickled."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from planner.errors import InputError
from planner.network.vit import Shape, VisionTransformer
from planner.schema import ModelCard, nearest, read_document
from planner.shipped import folder

CARD = "card.json"


def find_card(name: str) -> Path:
    """Return the path of a model's card: a path to one, or the name of a shipped model.

    Raises:
        InputError: If there is no such model.
    """
    if name.endswith(".json") or "/" in name:
        return Path(name)
    known = sorted(path.parent.name for path in folder("models").glob(f"*/{CARD}"))
    if name not in known:
        raise InputError(
            f"model must be a card's path or one of {', '.join(known)}, got {name!r}{nearest(name, known) or '.'}"
        )
    return folder("models") / name / CARD


def load_card(name: str) -> ModelCard:
    """Read a model's card."""
    return read_document(find_card(name), ModelCard)


def load_model(name: str) -> tuple[ModelCard, VisionTransformer]:
    """Return a model's card and the model itself, in eval mode.

    Raises:
        InputError: If the weights are not the card's: another hash, a missing or a left-over tensor.
    """
    path = find_card(name)
    card = read_document(path, ModelCard)
    model = VisionTransformer(whole_shape(card))
    load_weights(path.parent / card.weights, model, card.weights_sha256)
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
    )


def load_weights(path: Path, model: nn.Module, sha256: str) -> None:
    """Fill a model with a file's tensors, all of them and no others, and set it to eval mode.

    Raises:
        InputError: If the file is missing, damaged, changed, or another network's.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise InputError(f"{path}: SHA-256 must be {sha256[:12]}..., got {actual[:12]}...: the file was changed.")
    try:
        state = load_tensors(content)
    except SafetensorError as error:
        raise InputError(f"{path}: must be a safetensors file ({error}).") from None
    _match(path, state, model.state_dict())
    model.load_state_dict(state)
    model.eval()


def _match(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in state:
            raise InputError(f"{path}: tensor {name!r} is missing.")
        if state[name].shape != tensor.shape:
            got, must = tuple(state[name].shape), tuple(tensor.shape)
            raise InputError(f"{path}: tensor {name!r} must have shape {must}, got {got}.")
        if not torch.isfinite(state[name]).all():
            raise InputError(f"{path}: tensor {name!r} must hold finite numbers, got NaN or infinity.")
    for name in state:
        if name not in expected:
            raise InputError(
                f"{path}: tensor {name!r} belongs to no part of the network{nearest(name, expected) or '.'}"
            )
