"""Naming schemes of checkpoints: the names that other libraries give our parameters.

A scheme maps our name of a parameter to its name in the file, `{l}` standing for the block, or to
the names of queries, keys and values, or of gates and values, where the file has them apart. Ours
are timm's, which are DeiT's and DINOv2's too, but for the layers of gated MLPs. The others:

huggingface     ViT, ViT-MSN and DeiT for image classification (transformers); from version 5 on blocks have other names
torchvision     torchvision.models.VisionTransformer; before 0.14, an MLP had other names; heads may be replaced
cct             CCT, CVT and ViT-Lite of Compact Transformers; the first convolution has a bias where it is of patches
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from planner.errors import InputError
from planner.schema import did_you_mean

Scheme = Mapping[str, str | tuple[str, ...]]
_Names = dict[str, str | tuple[str, ...]]

# Parts of the layers that a file may have apart.
_NUM_PARTS = {"attn.qkv": 3, "mlp.fc1": 2}


def _weights_and_biases(modules: Scheme) -> _Names:
    """Return the names of the weights and biases of modules."""
    names: _Names = {}
    for ours, theirs in modules.items():
        for end in (".weight", ".bias"):
            names[ours + end] = theirs + end if isinstance(theirs, str) else tuple(part + end for part in theirs)
    return names


def _huggingface(root: str, heads: Scheme, is_new: bool = False) -> _Names:
    block = f"{root}.layers.{{l}}" if is_new else f"{root}.encoder.layer.{{l}}"
    attention = f"{block}.attention" if is_new else f"{block}.attention.attention"
    q, k, v = ("q_proj", "k_proj", "v_proj") if is_new else ("query", "key", "value")
    modules: _Names = {
        "patch_embed.proj": f"{root}.embeddings.patch_embeddings.projection",
        "blocks.{l}.norm1": f"{block}.layernorm_before",
        "blocks.{l}.attn.qkv": (f"{attention}.{q}", f"{attention}.{k}", f"{attention}.{v}"),
        "blocks.{l}.attn.proj": f"{attention}.o_proj" if is_new else f"{block}.attention.output.dense",
        "blocks.{l}.norm2": f"{block}.layernorm_after",
        "blocks.{l}.mlp.fc1": f"{block}.mlp.fc1" if is_new else f"{block}.intermediate.dense",
        "blocks.{l}.mlp.fc2": f"{block}.mlp.fc2" if is_new else f"{block}.output.dense",
        "norm": f"{root}.layernorm",
    }
    tensors: _Names = {
        "cls_token": f"{root}.embeddings.cls_token",
        "pos_embed": f"{root}.embeddings.position_embeddings",
        "dist_token": f"{root}.embeddings.distillation_token",
        "reg_token": f"{root}.embeddings.register_tokens",
    }
    tensors |= {f"blocks.{{l}}.ls{i}.gamma": f"{block}.layer_scale{i}.lambda1" for i in (1, 2)}
    return tensors | _weights_and_biases(modules | dict(heads))


_TORCHVISION_HEADS = ("heads.head", "heads", "heads.0", "heads.1", "heads.2")


def _torchvision(fc1: str, fc2: str, head: str) -> _Names:
    block = "encoder.layers.encoder_layer_{l}"
    modules: _Names = {
        "patch_embed.proj": "conv_proj",
        "blocks.{l}.norm1": f"{block}.ln_1",
        "blocks.{l}.attn.proj": f"{block}.self_attention.out_proj",
        "blocks.{l}.norm2": f"{block}.ln_2",
        "blocks.{l}.mlp.fc1": f"{block}.mlp.{fc1}",
        "blocks.{l}.mlp.fc2": f"{block}.mlp.{fc2}",
        "norm": "encoder.ln",
        "head": head,
    }
    tensors: _Names = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "blocks.{l}.attn.qkv.weight": f"{block}.self_attention.in_proj_weight",
        "blocks.{l}.attn.qkv.bias": f"{block}.self_attention.in_proj_bias",
    }
    return tensors | _weights_and_biases(modules)


def _cct(names: set[str]) -> _Names:
    block, tokenizer = "classifier.blocks.{l}", "tokenizer.conv_layers"
    modules: _Names = {
        "blocks.{l}.norm1": f"{block}.pre_norm",
        "blocks.{l}.attn.qkv": f"{block}.self_attn.qkv",
        "blocks.{l}.attn.proj": f"{block}.self_attn.proj",
        "blocks.{l}.norm2": f"{block}.norm1",
        "blocks.{l}.mlp.fc1": f"{block}.linear1",
        "blocks.{l}.mlp.fc2": f"{block}.linear2",
        "norm": "classifier.norm",
        "attention_pool": "classifier.attention_pool",
        "head": "classifier.fc",
    }
    if f"{tokenizer}.0.0.bias" in names:
        modules["patch_embed.proj"] = f"{tokenizer}.0.0"
    else:
        convolutions = [name.split(".")[2] for name in names if re.fullmatch(rf"{tokenizer}\.\d+\.0\.weight", name)]
        modules |= {f"patch_embed.stem.{i}": f"{tokenizer}.{i}.0" for i in convolutions}
    tensors: _Names = {"cls_token": "classifier.class_emb", "pos_embed": "classifier.positional_emb"}
    return tensors | _weights_and_biases(modules)


# timm's files have Q, K and V in one layer; its EVA, and some that were made from them, have three.
_SEPARATE_QKV = (("q", "k", "v"), ("q_proj", "k_proj", "v_proj"))
# Layers of gated MLPs, gates before values, and the layer behind them: DINOv2's, timm's SwiGLU, DINOv3's, LLaMA's.
_GATED_LAYERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("w12",), "w3"),
    (("fc1_g", "fc1_x"), "fc2"),
    (("w1", "w2"), "w3"),
    (("gate_proj", "up_proj"), "down_proj"),
)


def _timm(names: set[str]) -> _Names:
    """Return how a file with these names has layers that are called otherwise, or apart, in some of timm's ViTs."""
    modules: _Names = {}
    for parts in _SEPARATE_QKV:
        if f"blocks.0.attn.{parts[0]}.weight" in names:
            modules["blocks.{l}.attn.qkv"] = tuple(f"blocks.{{l}}.attn.{part}" for part in parts)
    for inputs, output in _GATED_LAYERS:
        if f"blocks.0.mlp.{inputs[0]}.weight" in names:
            theirs = tuple(f"blocks.{{l}}.mlp.{layer}" for layer in inputs)
            modules["blocks.{l}.mlp.fc1"] = theirs[0] if len(theirs) == 1 else theirs
            modules["blocks.{l}.mlp.fc2"] = f"blocks.{{l}}.mlp.{output}"
    return _weights_and_biases(modules)


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
    if name == "cct":
        return _cct(names)
    if name == "torchvision":
        fc1, fc2 = ("linear_1", "linear_2") if any(".mlp.linear_" in n for n in names) else ("0", "3")
        head = next((head for head in _TORCHVISION_HEADS if f"{head}.weight" in names), _TORCHVISION_HEADS[0])
        return _torchvision(fc1, fc2, head)
    return _timm(names)


def to_ours(state: Mapping[str, Tensor], scheme: Scheme) -> dict[str, Tensor]:
    """Return a file's tensors under our names; what the scheme does not name keeps its name.

    What the file has apart becomes one tensor, where all parts are there and fit.
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
    """Return the name, or the names of the parts, that one of our parameters has in the file.

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
        parts = _NUM_PARTS.get(".".join(name.split(".")[-3:-1]), 1)
        if not isinstance(theirs, str) and len(theirs) != parts:
            wanted = "one name" if parts == 1 else f"one name or {parts}"
            raise InputError(
                f"parameter_names: {name!r} must have {wanted}, got {list(theirs)}: only qkv has three, only fc1 two."
            )
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
