"""Import of a ViT's checkpoint from another library: a card, and weights under our names.

Sizes are read off the tensors' shapes. What does not show there is read from the config.json beside the checkpoint, or
is an argument (the number of heads), or the convention of the naming scheme (the epsilon of the layer norms) or of most
ViTs (the activation); the card says what was assumed. What other libraries write differently is rewritten where that
changes no answer (`equivalent_rewrites`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from planner.errors import InputError, setting
from planner.files import read_content
from planner.network import compact_transformers
from planner.network.checkpoint import CARD, WEIGHTS, whole_shape
from planner.network.equivalent_rewrites import rewrite, with_key_biases
from planner.network.import_settings import Gate, ImportSettings
from planner.network.jax_names import MARKER, from_jax
from planner.network.model_config import ModelConfig, read_config
from planner.network.naming_schemes import Scheme, check_map, check_tensors, in_file, scheme_of, to_ours
from planner.network.other_networks import described, norms_described
from planner.network.read_architecture import TensorShapes, read_architecture, with_patches
from planner.network.tensor_files import MAX_CHECKPOINT_BYTES, read_values
from planner.network.training_checkpoint import network_tensors
from planner.network.vit import Shape, VisionTransformer
from planner.schema import ModelCard, Origin, numbered_classes, write_document
from planner.schema.base import write_bytes
from planner.schema.card import NameMap

# Tensors by which a naming scheme is recognised: only its files have them.
_MARKERS = {
    "pos_embed": "timm",
    "encoder.pos_embedding": "torchvision",
    "vit.embeddings.position_embeddings": "huggingface",
    "deit.embeddings.position_embeddings": "huggingface",
    compact_transformers.COMPACT_MARKER: "cct",
}
_LAYER_NORM_EPS = {
    "timm": 1e-6,
    "torchvision": 1e-6,
    "huggingface": 1e-12,
    "cct": compact_transformers.LAYER_NORM_EPS,
}
_NUM_NAMES_SHOWN = 3
# A small network that has every parameter that a map may name.
_EVERY_PARAMETER = Shape(
    4, 2, 1, 2, 4, 2, (2, 2), (4, 4), distilled=True, num_registers=1, norm_before_blocks=True, qk_norm="layer_norm"
)
_FC1 = "blocks.0.mlp.fc1.weight"


@dataclass(frozen=True)
class _Renamed:
    """Tensors by our names, as far as they are ours."""

    tensors: dict[str, Tensor]
    names: Scheme  # the file's names of our parameters
    whose: str  # naming scheme, in words
    layer_norm_eps: float
    num_heads: int | None = None
    is_compact: bool = False  # a Compact Transformer


def import_checkpoint(source: Path, out: Path, settings: ImportSettings) -> ModelCard:
    """Convert a checkpoint, run it on one image, and write a card and its weights.

    Args:
        source: The checkpoint; of one in shards, its index.
        out: Folder for card and weights; the model gets its name.
        settings: What neither weights nor a config.json beside the checkpoint say.

    Raises:
        InputError: If the checkpoint is no ViT that ours can be, or a setting that it needs is missing or does not fit.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: must be a new or an empty folder, got one that holds something.")
    content, config = read_content(source, MAX_CHECKPOINT_BYTES), read_config(source)
    found = network_tensors(source, read_values(source, content), settings.ema)
    renamed = _renamed(source, found.tensors, settings.names, config)
    known = _known(config, settings, renamed)
    rewritten = rewrite(
        source, renamed.tensors, renamed.names, known.image_size, _has_gates_last(renamed, settings.gate)
    )
    shapes = TensorShapes(source, rewritten.tensors, renamed.names)
    num_classes = shapes.of("head.weight", 2)[0]
    if known.classes is not None and len(known.classes) != num_classes:
        raise InputError(f"{source}: has {num_classes} classes, got names for {len(known.classes)}.")
    architecture = read_architecture(
        shapes,
        known.num_heads,
        known.image_size,
        rewritten.norm_after_pooling,
        None if config is None else config.pooling,
        compact_transformers.implied_architecture(shapes, known.image_size) if renamed.is_compact else {},
    )
    architecture |= {
        "layer_norm_eps": renamed.layer_norm_eps if known.layer_norm_eps is None else known.layer_norm_eps,
        "activation": known.activation or ("silu" if architecture["gated_mlp"] else "gelu"),
    }
    notes = [*found.notes, *rewritten.notes, _assumed(architecture, known, renamed)]
    try:
        card = ModelCard.model_validate(
            {
                "model": out.resolve().name,
                "description": " ".join([f"Imported from {source.name}, whose names are {renamed.whose}.", *notes]),
                "architecture": architecture,
                "classes": numbered_classes(num_classes) if known.classes is None else tuple(known.classes),
                "origin": Origin(file=source.name, sha256=hashlib.sha256(content).hexdigest()),
                "preprocessing": _preprocessing(config),
            }
        )
    except ValidationError as error:
        raise _card_error(source, error) from None
    model = VisionTransformer(whole_shape(card))
    check_tensors(source, rewritten.tensors, model.state_dict(), renamed.names)
    model.load_state_dict(rewritten.tensors)
    _check_answer(source, model.eval())
    return _write(out, card, model)


def _known(config: ModelConfig | None, settings: ImportSettings, renamed: _Renamed) -> ImportSettings:
    """Return the settings, with what a config or the arrays' shapes say in place of what they leave open.

    Raises:
        InputError: If a setting contradicts them.
    """
    if None not in (renamed.num_heads, settings.num_heads) and renamed.num_heads != settings.num_heads:
        raise InputError(
            f"must be {renamed.num_heads}, as the arrays' shapes say, got {settings.num_heads}.", field="num_heads"
        )
    num_heads = renamed.num_heads if settings.num_heads is None else settings.num_heads
    return replace(
        settings,
        num_heads=_agreed(config, "num_heads", num_heads),
        image_size=_agreed(config, "image_size", settings.image_size),
        layer_norm_eps=_agreed(config, "layer_norm_eps", settings.layer_norm_eps),
        activation=_agreed(config, "activation", settings.activation),
        classes=config.classes if settings.classes is None and config is not None else settings.classes,
    )


def _has_gates_last(renamed: _Renamed, gate: Gate | None) -> bool:
    """Return whether fc1 has values before gates; names of gates and of values apart say it themselves."""
    if gate is not None and len(in_file(renamed.names, _FC1)) > 1:
        raise InputError("must be left out where gates and values have names of their own.", field="gate")
    return gate == "last"


def _assumed(architecture: Mapping[str, Any], known: ImportSettings, renamed: _Renamed) -> str:
    """Return a sentence that says what neither weights nor config nor settings say."""
    assumed = ["blocks with norms before each half"] * ("norm_between_halves" not in architecture)
    if "stem_stride" in architecture:
        assumed.append(f"convolutions of stride {architecture['stem_stride']}, each before a ReLU and max pooling")
    assumed += ["square images"] * (known.image_size is None)
    if known.activation is None:
        assumed.append("gates behind SiLU" if architecture["gated_mlp"] else "exact GELU")
    if architecture["gated_mlp"] and known.gate is None and len(in_file(renamed.names, _FC1)) == 1:
        assumed.append("gates before values")
    if architecture["qk_norm"] == "rms_norm":
        assumed.append("RMS norms of queries and keys, which have no bias")
    if known.layer_norm_eps is None:
        assumed.append(f"layer norms with epsilon {renamed.layer_norm_eps:g}")
    return f"Assumed, as weights do not show it: {', '.join(assumed)}."


def _renamed(source: Path, state: Mapping[str, Tensor], names: NameMap | None, config: ModelConfig | None) -> _Renamed:
    """Return a checkpoint's tensors by our names, those of a ViT that ours can be.

    Raises:
        InputError: If neither a map nor the names of known libraries recognise it, or it is another network.
    """
    renamed = _recognised(source, state, names, config)
    other = norms_described(renamed.tensors)
    if other is not None:
        raise InputError(f"{source}: must be a plain ViT, but {other}.")
    return renamed


def _recognised(
    source: Path, state: Mapping[str, Tensor], names: NameMap | None, config: ModelConfig | None
) -> _Renamed:
    """Return a checkpoint's tensors by our names, recognised by a map or by those of known libraries."""
    if names is not None:
        check_map(names, VisionTransformer(_EVERY_PARAMETER).state_dict())
        return _Renamed(with_patches(source, to_ours(state, names)), names, "mapped", _LAYER_NORM_EPS["timm"])
    other = described(state, config)
    if other is not None:
        raise InputError(f"{source}: must be a plain ViT, but {other}.")
    if MARKER in state:
        tensors, num_heads = from_jax(source, state)
        scheme = scheme_of("timm", tensors)
        return _Renamed(to_ours(tensors, scheme), {}, "Google's", _LAYER_NORM_EPS["timm"], num_heads)
    for marker, name in _MARKERS.items():
        if marker in state:
            complete = with_key_biases(state)
            scheme = scheme_of(name, complete)
            ours, eps = to_ours(complete, scheme), _LAYER_NORM_EPS[name]
            return _Renamed(ours, scheme, f"{name}'s", eps, is_compact=name == "cct")
    first = ", ".join(repr(name[:80]) for name in list(state)[:_NUM_NAMES_SHOWN]) or "no tensors"
    raise InputError(
        f"{source}: names must be those of timm, DeiT, Hugging Face's ViT or DeiT, torchvision, Google's ViT or "
        f"Compact Transformers, got {first}: none of these has them. Give a map from our names to those in the file as "
        f"{setting('names')}."
    )


def _agreed(config: ModelConfig | None, field: str, given: Any) -> Any:
    """Return a setting of the config, which must not contradict the argument."""
    stated = None if config is None else getattr(config, field)
    if config is not None and None not in (stated, given) and stated != given:
        raise InputError(f"must be {stated}, as {config.file} says, got {given}.", field=field)
    return given if stated is None else stated


def _preprocessing(config: ModelConfig | None) -> dict[str, tuple[float, ...]] | None:
    if config is None or config.mean is None or config.std is None:
        return None
    return {"mean": config.mean, "std": config.std}


def _card_error(source: Path, error: ValidationError) -> InputError:
    """Return the error for arguments that are not valid in a card."""
    first = error.errors()[0]
    place = "".join(f"{step}: " for step in first["loc"])
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
    # Where fields do not go together, the input is all of them, which would be too much to show.
    got = f", got {first['input']!r}" if first["loc"] else ""
    return InputError(f"{source}: cannot have a card: {place}{message}{got}.")


def _write(out: Path, card: ModelCard, model: VisionTransformer) -> ModelCard:
    """Write weights and card, the card last: a folder without one is unfinished."""
    weights = save(model.state_dict())
    card = card.replace(weights=WEIGHTS, weights_sha256=hashlib.sha256(weights).hexdigest())
    write_bytes(out / WEIGHTS, weights)
    write_document(out / CARD, card)
    return card


def _check_answer(source: Path, model: VisionTransformer) -> None:
    """Run the model on one image of noise: the logits must be finite."""
    shape = model.shape
    size = (1, shape.in_channels, *shape.image_sides)
    with torch.inference_mode():
        logits = model(torch.randn(size, generator=torch.Generator().manual_seed(0)))
    if not torch.isfinite(logits).all():
        raise InputError(f"{source}: the model must answer an image with finite logits, got NaN or infinity.")
