"""Naming schemes of checkpoints: the names that other libraries give our parameters.

A scheme maps our name of a parameter to its name in the file, `{l}` standing for the block, or to
the names of queries, keys and values where the file has them apart. Ours are timm's, which are
DeiT's too. The others:

huggingface     ViTForImageClassification, DeiTForImageClassificationWithTeacher (transformers)
torchvision     torchvision.models.VisionTransformer; before 0.14, an MLP had other names
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from planner.errors import InputError
from planner.schema import did_you_mean
from planner.schema.card import NameMap

Scheme = Mapping[str, str | tuple[str, str, str]]

_QKV = ("attn.qkv.weight", "attn.qkv.bias")


def _weights_and_biases(modules: Scheme) -> NameMap:
    """Return the names of the weights and biases of modules."""
    names: NameMap = {}
    for ours, theirs in modules.items():
        for end in (".weight", ".bias"):
            if isinstance(theirs, str):
                names[ours + end] = theirs + end
            else:
                query, key, value = (part + end for part in theirs)
                names[ours + end] = (query, key, value)
    return names


def _huggingface(root: str, heads: Scheme) -> NameMap:
    block = f"{root}.encoder.layer.{{l}}"
    attention = f"{block}.attention.attention"
    modules: NameMap = {
        "patch_embed.proj": f"{root}.embeddings.patch_embeddings.projection",
        "blocks.{l}.norm1": f"{block}.layernorm_before",
        "blocks.{l}.attn.qkv": (f"{attention}.query", f"{attention}.key", f"{attention}.value"),
        "blocks.{l}.attn.proj": f"{block}.attention.output.dense",
        "blocks.{l}.norm2": f"{block}.layernorm_after",
        "blocks.{l}.mlp.fc1": f"{block}.intermediate.dense",
        "blocks.{l}.mlp.fc2": f"{block}.output.dense",
        "norm": f"{root}.layernorm",
    }
    tokens: NameMap = {
        "cls_token": f"{root}.embeddings.cls_token",
        "pos_embed": f"{root}.embeddings.position_embeddings",
    }
    return tokens | _weights_and_biases(modules | dict(heads))


def _torchvision(fc1: str, fc2: str) -> NameMap:
    block = "encoder.layers.encoder_layer_{l}"
    modules: NameMap = {
        "patch_embed.proj": "conv_proj",
        "blocks.{l}.norm1": f"{block}.ln_1",
        "blocks.{l}.attn.proj": f"{block}.self_attention.out_proj",
        "blocks.{l}.norm2": f"{block}.ln_2",
        "blocks.{l}.mlp.fc1": f"{block}.mlp.{fc1}",
        "blocks.{l}.mlp.fc2": f"{block}.mlp.{fc2}",
        "norm": "encoder.ln",
        "head": "heads.head",
    }
    tensors: NameMap = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "blocks.{l}.attn.qkv.weight": f"{block}.self_attention.in_proj_weight",
        "blocks.{l}.attn.qkv.bias": f"{block}.self_attention.in_proj_bias",
    }
    return tensors | _weights_and_biases(modules)


_VIT = _huggingface("vit", {"head": "classifier"})
_DEIT = _huggingface("deit", {"head": "cls_classifier", "head_dist": "distillation_classifier"})
_DEIT["dist_token"] = "deit.embeddings.distillation_token"
_TORCHVISION, _OLD_TORCHVISION = _torchvision("0", "3"), _torchvision("linear_1", "linear_2")


def scheme_of(name: str, file_names: Iterable[str]) -> Scheme:
    """Return a named scheme, in the variant to which a file's names belong."""
    if name == "huggingface":
        return _DEIT if any(n.startswith("deit.") for n in file_names) else _VIT
    if name == "torchvision":
        return _OLD_TORCHVISION if any(".mlp.linear_" in n for n in file_names) else _TORCHVISION
    return {}


def in_file(scheme: Scheme, ours: str) -> tuple[str, ...]:
    """Return the name, or the three names, that one of our parameters has in the file.

    A parameter that the scheme does not name has the same name in the file.
    """
    block = ours.split(".")[1] if ours.startswith("blocks.") else None
    theirs = scheme.get(_pattern(ours), ours)
    parts = (theirs,) if isinstance(theirs, str) else theirs
    return parts if block is None else tuple(part.replace("{l}", block) for part in parts)


def check_map(scheme: Scheme, parameters: Iterable[str]) -> None:
    """Check that a network of these parameters can be read by a map.

    Raises:
        InputError: If a name is none of ours, stands for two parameters, or is split where it cannot be.
    """
    parameters = list(parameters)
    ours = {_pattern(name) for name in parameters}
    for name, theirs in scheme.items():
        if name not in ours:
            raise InputError(
                f"parameter_names: {name!r} is no parameter of the network{did_you_mean(name, ours) or '.'}"
            )
        if not isinstance(theirs, str) and not name.endswith(_QKV):
            raise InputError(f"parameter_names: {name!r} must have one name, got {list(theirs)}: only qkv has three.")
    owners: dict[str, str] = {}
    for name in parameters:
        for theirs in in_file(scheme, name):
            owner = owners.setdefault(theirs, name)
            if owner != name or in_file(scheme, name).count(theirs) > 1:
                raise InputError(f"parameter_names: {theirs!r} must be one parameter, got {owner!r} and {name!r}.")


def _pattern(ours: str) -> str:
    """Return one of our names with `{l}` for its block."""
    parts = ours.split(".")
    return ".".join([parts[0], "{l}", *parts[2:]]) if parts[0] == "blocks" else ours


def rename_tensors(
    where: object, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], scheme: Scheme
) -> dict[str, Tensor]:
    """Return a file's tensors under our names: all that the network expects, and no others.

    Args:
        where: The file, for error messages.
        state: The file's tensors by the file's names.
        expected: The network's tensors by our names; only their shapes are used.
        scheme: The file's names of our parameters.

    Raises:
        InputError: If a tensor is missing, left over, of another shape or not finite: named as in the file.
    """
    ours: dict[str, Tensor] = {}
    known: set[str] = set()
    for name, tensor in expected.items():
        parts = in_file(scheme, name)
        rows, *rest = tensor.shape or (1,)
        shape = tensor.shape if len(parts) == 1 else torch.Size([rows // len(parts), *rest])
        for part in parts:
            _check(where, part, state, shape)
        known.update(parts)
        ours[name] = state[parts[0]] if len(parts) == 1 else torch.cat([state[part] for part in parts])
    for name in state:
        if name not in known:
            raise InputError(
                f"{where}: tensor {name!r} belongs to no part of the network{did_you_mean(name, known) or '.'}"
            )
    return ours


def _check(where: object, name: str, state: Mapping[str, Tensor], shape: torch.Size) -> None:
    if name not in state:
        raise InputError(f"{where}: tensor {name!r} is missing.")
    if state[name].shape != shape:
        raise InputError(f"{where}: tensor {name!r} must have shape {tuple(shape)}, got {tuple(state[name].shape)}.")
    if not torch.isfinite(state[name]).all():
        raise InputError(f"{where}: tensor {name!r} must hold finite numbers, got NaN or infinity.")
