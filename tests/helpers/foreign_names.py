"""An oracle for naming schemes: a network's tensors under the names of other libraries, written out."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planner.network.vit import VisionTransformer

HF_BLOCK = {
    "norm1.weight": "layernorm_before.weight",
    "norm1.bias": "layernorm_before.bias",
    "attn.proj.weight": "attention.output.dense.weight",
    "attn.proj.bias": "attention.output.dense.bias",
    "norm2.weight": "layernorm_after.weight",
    "norm2.bias": "layernorm_after.bias",
    "mlp.fc1.weight": "intermediate.dense.weight",
    "mlp.fc1.bias": "intermediate.dense.bias",
    "mlp.fc2.weight": "output.dense.weight",
    "mlp.fc2.bias": "output.dense.bias",
}
HF_VIT = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.weight": "vit.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "vit.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "vit.layernorm.weight",
    "norm.bias": "vit.layernorm.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
HF_DEIT = {
    "cls_token": "deit.embeddings.cls_token",
    "dist_token": "deit.embeddings.distillation_token",
    "pos_embed": "deit.embeddings.position_embeddings",
    "patch_embed.proj.weight": "deit.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "deit.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "deit.layernorm.weight",
    "norm.bias": "deit.layernorm.bias",
    "head.weight": "cls_classifier.weight",
    "head.bias": "cls_classifier.bias",
    "head_dist.weight": "distillation_classifier.weight",
    "head_dist.bias": "distillation_classifier.bias",
}
TORCHVISION = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.weight": "conv_proj.weight",
    "patch_embed.proj.bias": "conv_proj.bias",
    "norm.weight": "encoder.ln.weight",
    "norm.bias": "encoder.ln.bias",
    "head.weight": "heads.head.weight",
    "head.bias": "heads.head.bias",
}
TORCHVISION_BLOCK = {
    "norm1.weight": "ln_1.weight",
    "norm1.bias": "ln_1.bias",
    "attn.qkv.weight": "self_attention.in_proj_weight",
    "attn.qkv.bias": "self_attention.in_proj_bias",
    "attn.proj.weight": "self_attention.out_proj.weight",
    "attn.proj.bias": "self_attention.out_proj.bias",
    "norm2.weight": "ln_2.weight",
    "norm2.bias": "ln_2.bias",
    "mlp.fc1.weight": "mlp.0.weight",
    "mlp.fc1.bias": "mlp.0.bias",
    "mlp.fc2.weight": "mlp.3.weight",
    "mlp.fc2.bias": "mlp.3.bias",
}
HF_5 = {
    "encoder.layer.": "layers.",
    "attention.output.dense": "attention.o_proj",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
JAX = {
    "cls_token": "cls",
    "pos_embed": "Transformer/posembed_input/pos_embedding",
    "patch_embed.proj.weight": "embedding/kernel",
    "patch_embed.proj.bias": "embedding/bias",
    "norm.weight": "Transformer/encoder_norm/scale",
    "norm.bias": "Transformer/encoder_norm/bias",
    "head.weight": "head/kernel",
    "head.bias": "head/bias",
}
JAX_BLOCK = {
    "norm1.weight": "LayerNorm_0/scale",
    "norm1.bias": "LayerNorm_0/bias",
    "attn.proj.bias": "MultiHeadDotProductAttention_1/out/bias",
    "norm2.weight": "LayerNorm_2/scale",
    "norm2.bias": "LayerNorm_2/bias",
    "mlp.fc1.weight": "MlpBlock_3/Dense_0/kernel",
    "mlp.fc1.bias": "MlpBlock_3/Dense_0/bias",
    "mlp.fc2.weight": "MlpBlock_3/Dense_1/kernel",
    "mlp.fc2.bias": "MlpBlock_3/Dense_1/bias",
}
OLD_MLP = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}


def huggingface(model: VisionTransformer) -> dict[str, Tensor]:
    """Return a network's tensors under the names of transformers, with q, k and v apart."""
    root, names = ("deit", HF_DEIT) if model.shape.distilled else ("vit", HF_VIT)
    return huggingface_with(model, root, names)


def huggingface_with(model: VisionTransformer, root: str, more_names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a network's tensors under the names of transformers, some of them given."""
    names = {ours: theirs.replace("vit.", f"{root}.") for ours, theirs in HF_VIT.items()} | dict(more_names)
    state = {}
    for ours, tensor in model.state_dict().items():
        if not ours.startswith("blocks."):
            state[names[ours]] = tensor
            continue
        _, l, rest = ours.split(".", 2)
        block = f"{root}.encoder.layer.{l}"
        if rest in HF_BLOCK:
            state[f"{block}.{HF_BLOCK[rest]}"] = tensor
            continue
        end = rest.removeprefix("attn.qkv.")
        third = len(tensor) // 3
        for i, part in enumerate(("query", "key", "value")):
            state[f"{block}.attention.attention.{part}.{end}"] = tensor[i * third : (i + 1) * third].clone()
    return state


def huggingface_5(model: VisionTransformer) -> dict[str, Tensor]:
    """Return a plain network's tensors under the names of transformers from version 5 on."""
    renamed = {}
    for name, tensor in huggingface(model).items():
        for old, new in HF_5.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


def jax(model: VisionTransformer) -> dict[str, NDArray[np.float32]]:
    """Return a plain network's tensors as the arrays of Google's checkpoints."""
    heads, dim = model.shape.num_heads[0], model.shape.head_dim
    arrays = {}
    for ours, tensor in model.state_dict().items():
        array = tensor.numpy()
        if not ours.startswith("blocks."):
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T if array.ndim == 2 else array
            arrays[JAX[ours]] = array
            continue
        _, l, rest = ours.split(".", 2)
        block = f"Transformer/encoderblock_{l}"
        if rest.startswith("attn.qkv"):
            for part, name in zip(np.split(array, 3), ("query", "key", "value"), strict=True):
                shaped = part.reshape(heads, dim, *part.shape[1:])
                kernel = np.moveaxis(shaped, 2, 0) if shaped.ndim == 3 else shaped
                end = "kernel" if shaped.ndim == 3 else "bias"
                arrays[f"{block}/MultiHeadDotProductAttention_1/{name}/{end}"] = kernel
        elif rest == "attn.proj.weight":
            arrays[f"{block}/MultiHeadDotProductAttention_1/out/kernel"] = array.T.reshape(heads, dim, -1)
        else:
            arrays[f"{block}/{JAX_BLOCK[rest]}"] = array.T if array.ndim == 2 else array
    return arrays


def torchvision(model: VisionTransformer) -> dict[str, Tensor]:
    """Return a network's tensors under the names of torchvision."""
    state = {}
    for ours, tensor in model.state_dict().items():
        if ours.startswith("blocks."):
            _, l, rest = ours.split(".", 2)
            state[f"encoder.layers.encoder_layer_{l}.{TORCHVISION_BLOCK[rest]}"] = tensor
        else:
            state[TORCHVISION[ours]] = tensor
    return state


def old_torchvision(model: VisionTransformer) -> dict[str, Tensor]:
    """Return a network's tensors under the names of torchvision before 0.14."""
    state = {}
    for name, tensor in torchvision(model).items():
        for new, old in OLD_MLP.items():
            name = name.replace(new, old)
        state[name] = tensor
    return state


def timm(model: VisionTransformer) -> dict[str, Tensor]:
    """Return a network's tensors under the names of timm and DeiT, which are also ours."""
    return {name: torch.clone(tensor) for name, tensor in model.state_dict().items()}
