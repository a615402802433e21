"""Readers of model cards and their weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from planner.errors import InputError
from planner.files import read_content
from planner.library import folder
from planner.network.naming_schemes import Scheme, check_map, check_tensors, scheme_of, to_ours
from planner.network.tensor_files import MAX_CHECKPOINT_BYTES, read_values
from planner.network.training_checkpoint import network_tensors
from planner.network.vit import Shape, VisionTransformer
from planner.schema import ModelCard, did_you_mean, read_document

CARD = "card.json"
WEIGHTS = "weights.safetensors"

# What a training's checkpoint may hold beside the network, in multiples of it: an average, two moments, in float64.
_MAX_OVERHEAD, _MAX_HEADER_BYTES = 16, 64 * 2**20

_Module = TypeVar("_Module", bound=nn.Module)


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
    shape = whole_shape(card)
    return card, loaded_module(
        path.parent / card.weights, lambda: VisionTransformer(shape), card.weights_sha256, card.parameter_names
    )


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
        class_token=a.class_token,
        num_registers=a.register_tokens,
        pooling=a.pooling,
        norm_after_pooling=a.norm_after_pooling,
        norm_before_blocks=a.norm_before_blocks,
        activation=a.activation,
        gated_mlp=a.gated_mlp,
        qk_norm=a.qk_norm,
        norm_between_halves=a.norm_between_halves,
        stem_kernel=a.stem_kernel,
        stem_stride=a.stem_stride,
        stem_max_pool=a.stem_max_pool,
    )


def loaded_module(path: Path, make: Callable[[], _Module], sha256: str, names: str | Scheme = "timm") -> _Module:
    """Return a network with a file's tensors, all of them and no others, in eval mode.

    Its memory is taken only once the file has been found to hold it: a card may state any size.

    Args:
        path: The file.
        make: Maker of the network.
        sha256: Expected hash of the file.
        names: Naming scheme of the file's parameters: its name, or a map from our names.

    Raises:
        InputError: If the file is missing, damaged, changed, or another network's.
    """
    with torch.device("meta"):
        expected = make().state_dict()
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    content = read_content(path, min(MAX_CHECKPOINT_BYTES, _MAX_OVERHEAD * num_bytes + _MAX_HEADER_BYTES))
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise InputError(f"{path}: SHA-256 must be {sha256[:12]}..., got {actual[:12]}...: the file was changed.")
    state = network_tensors(path, read_values(path, content)).tensors
    if isinstance(names, str):
        names = scheme_of(names, state)
    else:
        check_map(names, expected)
    tensors = to_ours(state, names)
    check_tensors(path, tensors, expected, names)
    module = make()
    module.load_state_dict(tensors)
    return module.eval()
