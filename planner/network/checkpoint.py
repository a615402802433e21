"""Readers of model cards and their weights."""

import hashlib
from pathlib import Path

from torch import nn

from planner.errors import InputError
from planner.library import folder
from planner.network.naming_schemes import Scheme, check_map, check_tensors, scheme_of, to_ours
from planner.network.tensor_files import read_content, read_values
from planner.network.training_checkpoint import network_tensors
from planner.network.vit import Shape, VisionTransformer
from planner.schema import ModelCard, did_you_mean, read_document

CARD = "card.json"
WEIGHTS = "weights.safetensors"


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
        class_token=a.class_token,
        num_registers=a.register_tokens,
        pooling=a.pooling,
        norm_after_pooling=a.norm_after_pooling,
        norm_before_blocks=a.norm_before_blocks,
        activation=a.activation,
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
    state, expected = network_tensors(path, read_values(path, content)).tensors, model.state_dict()
    if isinstance(names, str):
        names = scheme_of(names, state)
    else:
        check_map(names, expected)
    tensors = to_ours(state, names)
    check_tensors(path, tensors, expected, names)
    model.load_state_dict(tensors)
    model.eval()
