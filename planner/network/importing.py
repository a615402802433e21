"""Import of a plain ViT's checkpoint from another library: a card, and weights under our names.

Sizes are read off the tensors' shapes. What does not show there is read from the config.json beside the checkpoint
(heads, epsilon, class names, mean and std), or is an argument (the number of heads) or the convention of the naming
scheme (the epsilon of the layer norms). LayerScale is folded.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from planner.errors import InputError, setting
from planner.network.checkpoint import CARD, WEIGHTS, parse, read_content, whole_shape
from planner.network.layer_scale import fold_layer_scale
from planner.network.model_config import ModelConfig, read_config
from planner.network.naming_schemes import Scheme, in_file, rename_tensors, scheme_of
from planner.network.vit import VisionTransformer
from planner.schema import ModelCard, Origin, numbered_classes, write_document
from planner.schema.base import write_bytes

# Tensors by which a naming scheme is recognised: only its files have them.
_MARKERS = {
    "cls_token": "timm",
    "class_token": "torchvision",
    "vit.embeddings.cls_token": "huggingface",
    "deit.embeddings.cls_token": "huggingface",
}
_LAYER_NORM_EPS = {"timm": 1e-6, "torchvision": 1e-6, "huggingface": 1e-12}
# Of the ViTs of embed dim 192, 384, 768 and 1024.
_USUAL_HEAD_DIM = 64


def import_checkpoint(
    source: Path,
    out: Path,
    num_heads: int | None,
    classes: Sequence[str] | None = None,
    layer_norm_eps: float | None = None,
) -> ModelCard:
    """Convert a checkpoint, run it on one image, and write a card and its weights.

    Args:
        source: The checkpoint.
        out: Folder for card and weights; the model gets its name.
        num_heads: Heads of each block; needed where no config.json beside the checkpoint says it.
        classes: Names of the classes; those of the config, or numbers, unless given.
        layer_norm_eps: Epsilon of all layer norms; that of the config, or the naming scheme's convention, unless given.

    Raises:
        InputError: If the checkpoint is no plain ViT, or an argument that it needs is missing or does not fit.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: must be a new or an empty folder, got one that holds something.")
    content, config = read_content(source), read_config(source)
    state = parse(source, content)
    scheme, names = _recognise(source, state)
    state, num_factors = fold_layer_scale(source, state, names)
    shapes = _Shapes(source, state, names)
    num_classes = shapes.of("head.weight", 2)[0]
    if config is not None:
        num_heads = _agreed(config, "num_heads", num_heads)
        layer_norm_eps = _agreed(config, "layer_norm_eps", layer_norm_eps)
        classes = config.classes if classes is None else classes
    if classes is not None and len(classes) != num_classes:
        raise InputError(f"{source}: has {num_classes} classes, got names for {len(classes)}.")
    eps = _LAYER_NORM_EPS[scheme] if layer_norm_eps is None else layer_norm_eps
    folded = f" Its {num_factors} LayerScale factors are folded into the layers before them." if num_factors else ""
    try:
        card = ModelCard.model_validate(
            {
                "model": out.resolve().name,
                "description": f"Imported from {source.name}, whose names are {scheme}'s.{folded}",
                "architecture": _architecture(shapes, num_heads, eps),
                "classes": numbered_classes(num_classes) if classes is None else tuple(classes),
                "origin": Origin(file=source.name, sha256=hashlib.sha256(content).hexdigest()),
                "preprocessing": _preprocessing(config),
            }
        )
    except ValidationError as error:
        raise _card_error(source, error) from None
    model = VisionTransformer(whole_shape(card))
    model.load_state_dict(rename_tensors(source, state, model.state_dict(), names))
    _check_answer(source, model.eval())
    return _write(out, card, model)


def _agreed(config: ModelConfig, field: str, given: Any) -> Any:
    """Return a setting of the config, which must not contradict the argument."""
    stated = getattr(config, field)
    if None not in (stated, given) and stated != given:
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


def _recognise(source: Path, state: Mapping[str, Tensor]) -> tuple[str, Scheme]:
    for marker, scheme in _MARKERS.items():
        if marker in state:
            return scheme, scheme_of(scheme, state)
    first = ", ".join(repr(name) for name in list(state)[:3]) or "no tensors"
    raise InputError(
        f"{source}: names must be those of timm, DeiT, Hugging Face's ViT or DeiT, or torchvision, with a class token; "
        f"got {first}. Write a card with a map as its parameter_names instead."
    )


class _Shapes:
    """Shapes of a file's tensors by our names."""

    def __init__(self, source: Path, state: Mapping[str, Tensor], names: Scheme) -> None:
        self.source, self._state, self._names = source, state, names

    def has(self, ours: str) -> bool:
        return all(part in self._state for part in in_file(self._names, ours))

    def of(self, ours: str, ndim: int) -> tuple[int, ...]:
        """Return a tensor's shape, rows of queries, keys and values added up."""
        parts = in_file(self._names, ours)
        for part in parts:
            if part not in self._state:
                raise InputError(f"{self.source}: tensor {part!r} is missing.")
            if len(got := self._state[part].shape) != ndim or 0 in got:
                raise InputError(f"{self.source}: tensor {part!r} must have {ndim} dimensions, got shape {tuple(got)}.")
        shapes = [self._state[part].shape for part in parts]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def name(self, ours: str) -> str:
        return in_file(self._names, ours)[0]


def _architecture(shapes: _Shapes, num_heads: int | None, layer_norm_eps: float) -> dict[str, int | float | bool]:
    embed_dim, in_channels, patch_size, _ = shapes.of("patch_embed.proj.weight", 4)
    shapes.of("blocks.0.norm1.weight", 1)
    depth = 0
    while shapes.has(f"blocks.{depth}.norm1.weight"):
        depth += 1
    hidden_dim = shapes.of("blocks.0.mlp.fc1.weight", 2)[0]
    inner_dim = shapes.of("blocks.0.attn.qkv.weight", 2)[0] // 3
    num_heads = _checked_heads(shapes.source, num_heads, inner_dim)
    distilled = shapes.has("dist_token")
    if distilled and not shapes.has("head_dist.weight"):
        raise InputError(
            f"{shapes.source}: has a distillation token, but no head layer for it "
            f"({shapes.name('head_dist.weight')!r}): a model with two tokens and one head layer cannot be run."
        )
    num_tokens, num_prefix = shapes.of("pos_embed", 3)[1], 2 if distilled else 1
    side = math.isqrt(max(0, num_tokens - num_prefix))
    if side == 0 or side**2 != num_tokens - num_prefix:
        raise InputError(
            f"{shapes.source}: tensor {shapes.name('pos_embed')!r} must have {num_prefix} + a square of tokens, "
            f"got {num_tokens}: images must be square, each patch with a position."
        )
    return {
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "in_channels": in_channels,
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": num_heads,
        "head_dim": inner_dim // num_heads,
        "hidden_dim": hidden_dim,
        "distilled": distilled,
        "layer_norm_eps": layer_norm_eps,
    }


def _checked_heads(source: Path, num_heads: int | None, inner_dim: int) -> int:
    """Return the number of heads, if it was given and divides the rows of the queries."""
    if num_heads is None:
        usual = inner_dim // _USUAL_HEAD_DIM
        hint = (
            f"; with the usual head dim of {_USUAL_HEAD_DIM} it would be {setting('num_heads', usual)}"
            if inner_dim % _USUAL_HEAD_DIM == 0
            else ""
        )
        raise InputError(
            f"{source}: the number of heads does not show in the weights: give it as {setting('num_heads')}{hint}."
        )
    if num_heads < 1 or inner_dim % num_heads:
        raise InputError(f"{setting('num_heads')} must divide {inner_dim}, the width of the queries, got {num_heads}.")
    return num_heads


def _check_answer(source: Path, model: VisionTransformer) -> None:
    """Run the model on one image of noise: the logits must be finite."""
    shape = model.shape
    size = (1, shape.in_channels, shape.image_size, shape.image_size)
    with torch.inference_mode():
        logits = model(torch.randn(size, generator=torch.Generator().manual_seed(0)))
    if not torch.isfinite(logits).all():
        raise InputError(f"{source}: the model must answer an image with finite logits, got NaN or infinity.")
