"""Naming schemes of checkpoints: the names that other libraries give our parameters.

A scheme maps our name of a parameter to its name in the file, `{l}` standing for the block, or to
the names of queries, keys and values where the file has them apart. Ours are timm's, which are
DeiT's too. The others:

huggingface     ViT, ViT-MSN and DeiT for image classification (transformers); from version 5 on blocks have other names
torchvision     torchvision.models.VisionTransformer; before 0.14, an MLP had other names; heads may be replaced
"""

import re
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


def _huggingface(root: str, heads: Scheme, is_new: bool = False) -> NameMap:
    block = f"{root}.layers.{{l}}" if is_new else f"{root}.encoder.layer.{{l}}"
    attention = f"{block}.attention" if is_new else f"{block}.attention.attention"
    q, k, v = ("q_proj", "k_proj", "v_proj") if is_new else ("query", "key", "value")
    modules: NameMap = {
        "patch_embed.proj": f"{root}.embeddings.patch_embeddings.projection",
        "blocks.{l}.norm1": f"{block}.layernorm_before",
        "blocks.{l}.attn.qkv": (f"{attention}.{q}", f"{attention}.{k}", f"{attention}.{v}"),
        "blocks.{l}.attn.proj": f"{attention}.o_proj" if is_new else f"{block}.attention.output.dense",
        "blocks.{l}.norm2": f"{block}.layernorm_after",
        "blocks.{l}.mlp.fc1": f"{block}.mlp.fc1" if is_new else f"{block}.intermediate.dense",
        "blocks.{l}.mlp.fc2": f"{block}.mlp.fc2" if is_new else f"{block}.output.dense",
        "norm": f"{root}.layernorm",
    }
    tensors: NameMap = {
        "cls_token": f"{root}.embeddings.cls_token",
        "pos_embed": f"{root}.embeddings.position_embeddings",
        "dist_token": f"{root}.embeddings.distillation_token",
        "reg_token": f"{root}.embeddings.register_tokens",
    }
    tensors |= {f"blocks.{{l}}.ls{i}.gamma": f"{block}.layer_scale{i}.lambda1" for i in (1, 2)}
    return tensors | _weights_and_biases(modules | dict(heads))


def _torchvision(fc1: str, fc2: str, head: str) -> NameMap:
    block = "encoder.layers.encoder_layer_{l}"
    modules: NameMap = {
        "patch_embed.proj": "conv_proj",
        "blocks.{l}.norm1": f"{block}.ln_1",
        "blocks.{l}.attn.proj": f"{block}.self_attention.out_proj",
        "blocks.{l}.norm2": f"{block}.ln_2",
        "blocks.{l}.mlp.fc1": f"{block}.mlp.{fc1}",
        "blocks.{l}.mlp.fc2": f"{block}.mlp.{fc2}",
        "norm": "encoder.ln",
        "head": head,
    }
    tensors: NameMap = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "blocks.{l}.attn.qkv.weight": f"{block}.self_attention.in_proj_weight",
        "blocks.{l}.attn.qkv.bias": f"{block}.self_attention.in_proj_bias",
    }
    return tensors | _weights_and_biases(modules)


# timm's files have Q, K and V in one layer; some that were made from them have three.
_SEPARATE_QKV: NameMap = {
    f"blocks.{{l}}.attn.qkv.{end}": (
        f"blocks.{{l}}.attn.q.{end}",
        f"blocks.{{l}}.attn.k.{end}",
        f"blocks.{{l}}.attn.v.{end}",
    )
    for end in ("weight", "bias")
}
_TORCHVISION_HEADS = ("heads.head", "heads", "heads.0", "heads.1", "heads.2")


def scheme_of(name: str, file_names: Iterable[str]) -> Scheme:
    """Return a named scheme, in the variant to which a file's names belong."""
    names = set(file_names)
    if name == "huggingface":
        is_new = any(re.search(r"\.layers\.\d+\.attention\.q_proj\.", n) for n in names)
        if not any(n.startswith("deit.") for n in names):
            return _huggingface("vit", {"head": "classifier"}, is_new)
        if "classifier.weight" in names:
            # Nothing is read from its distillation token, as from a register token.
            plain = _huggingface("deit", {"head": "classifier"}, is_new)
            return plain | {"reg_token": plain.pop("dist_token")}
        return _huggingface("deit", {"head": "cls_classifier", "head_dist": "distillation_classifier"}, is_new)
    if name == "torchvision":
        fc1, fc2 = ("linear_1", "linear_2") if any(".mlp.linear_" in n for n in names) else ("0", "3")
        head = next((head for head in _TORCHVISION_HEADS if f"{head}.weight" in names), _TORCHVISION_HEADS[0])
        return _torchvision(fc1, fc2, head)
    return _SEPARATE_QKV if "blocks.0.attn.q.weight" in names else {}


def to_ours(state: Mapping[str, Tensor], scheme: Scheme) -> dict[str, Tensor]:
    """Return a file's tensors under our names; what the scheme does not name keeps its name.

    Queries, keys and values that the file has apart become one tensor, where all three are there and fit.
    """
    ours: dict[str, Tensor] = {}
    left = dict(state)
    for pattern in scheme:
        for block in _blocks(state, scheme, pattern):
            parts = [part.replace("{l}", block) for part in in_file(scheme, pattern)]
            if all(part in left for part in parts) and len({left[part].shape[1:] for part in parts}) == 1:
                tensors = [left.pop(part) for part in parts]
                ours[pattern.replace("{l}", block)] = tensors[0] if len(parts) == 1 else torch.cat(tensors)
    return left | ours


def _blocks(state: Mapping[str, Tensor], scheme: Scheme, pattern: str) -> list[str]:
    """Return the numbers of the blocks for which a file has a pattern's tensors; of a name without block, one."""
    if "{l}" not in pattern:
        return [""]
    before, _, after = in_file(scheme, pattern)[0].partition("{l}")
    return [n[len(before) : len(n) - len(after)] for n in state if n.startswith(before) and n.endswith(after)]


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


def check_tensors(where: object, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], scheme: Scheme) -> None:
    """Check that tensors are all that a network expects, and no others.

    Args:
        where: The file, for error messages.
        tensors: The file's tensors by our names.
        expected: The network's tensors by our names; only their shapes are used.
        scheme: The file's names of our parameters, for error messages.

    Raises:
        InputError: If a tensor is missing, left over, of another shape or not finite: named as in the file.
    """
    for name, tensor in expected.items():
        parts = in_file(scheme, name)
        if name not in tensors:
            missing = [part for part in parts if part not in tensors]
            if missing:
                raise InputError(f"{where}: tensor {missing[0]!r} is missing.")
            raise InputError(f"{where}: tensors {', '.join(map(repr, parts))} must have rows of one length.")
        theirs = " with ".join(map(repr, parts))
        if tensors[name].shape != tensor.shape:
            raise InputError(
                f"{where}: tensor {theirs} must have shape {tuple(tensor.shape)}, got {tuple(tensors[name].shape)}."
            )
        if not torch.isfinite(tensors[name]).all():
            raise InputError(f"{where}: tensor {theirs} must hold finite numbers, got NaN or infinity.")
    known = {part for name in expected for part in in_file(scheme, name)}
    for name in tensors:
        if name not in expected:
            theirs = in_file(scheme, name)[0]
            raise InputError(
                f"{where}: tensor {theirs!r} belongs to no part of the network{did_you_mean(theirs, known) or '.'}"
            )
