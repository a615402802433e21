"""An oracle for the network: a ViT as plain arithmetic on a state dict, with masks for every unit.

It shares no code with `planner.network`: no modules, no fused attention, no `F.layer_norm`.

Legend: B images, N tokens, E embed dim, h heads, hd head dim, c hidden channels, C classes, L blocks.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from planner.network.distillation_data import DistillationData
from planner.network.half_blocks import Attention, Mlp
from planner.network.vit import Block, Shape, VisionTransformer

# A state dict: tensors by name.
State = dict[str, Tensor]

# As their papers write them.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "relu": lambda x: (x + x.abs()) / 2,
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
}


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def random_model(shape: Shape, seed: int = 0) -> VisionTransformer:
    """Return a network in eval mode whose every parameter is random, norms and biases too."""
    model = VisionTransformer(shape).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.4, generator=generator)
    return model


def random_images(shape: Shape, count: int, seed: int = 1) -> Tensor:
    """Return images (B, channels, H, W) of normal noise."""
    size = (count, shape.in_channels, *shape.image_sides)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def attention_of(model: VisionTransformer, l: int) -> Attention:
    """Return the attention module of a block that has one."""
    block = model.blocks[l]
    assert isinstance(block, Block)
    assert block.attn is not None
    return block.attn


def mlp_of(model: VisionTransformer, l: int) -> Mlp:
    """Return the MLP of a block that has one."""
    block = model.blocks[l]
    assert isinstance(block, Block)
    assert block.mlp is not None
    return block.mlp


def ones(shape: Shape) -> tuple[list[Tensor], list[Tensor]]:
    """Return masks that keep every head (L of (h,)) and every hidden channel (L of (c,))."""
    masks = [[torch.ones(size, dtype=torch.float64) for size in sizes] for sizes in (shape.num_heads, shape.hidden_dim)]
    return masks[0], masks[1]


def plain_features(
    model: VisionTransformer,
    images: Tensor,
    head_masks: Sequence[Tensor],
    channel_masks: Sequence[Tensor],
    dim_mask: Tensor | None = None,
) -> Tensor:
    """Return the mean of the pooled tokens (B, E), of which a distilled model has two; see `plain_pooled`."""
    pooled = plain_pooled(model, images, head_masks, channel_masks, dim_mask)
    return pooled.sum(1) / pooled.shape[1]


def plain_pooled(
    model: VisionTransformer,
    images: Tensor,
    head_masks: Sequence[Tensor],
    channel_masks: Sequence[Tensor],
    dim_mask: Tensor | None = None,
) -> Tensor:
    """Return the pooled tokens (B, P, E), behind the last norm, in float64, everything multiplied by its mask.

    A half all of whose units are masked adds nothing, not even its bias. Norms look at the kept dims alone.

    Args:
        model: Only its shape and its state dict are used.
        images: (B, channels, H, W).
        head_masks: Multipliers of each head's output, L of (h,).
        channel_masks: Multipliers of each hidden channel's output, L of (c,).
        dim_mask: Multipliers of the residual stream, (E,) of 0 and 1; all kept unless given.
    """
    shape = model.shape
    w = {name: tensor.double() for name, tensor in model.state_dict().items()}
    kept = torch.ones(shape.embed_dim, dtype=torch.float64) if dim_mask is None else dim_mask

    def linear(x: Tensor, name: str) -> Tensor:
        y: Tensor = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        return y

    def norm(x: Tensor, name: str) -> Tensor:
        mean = (x * kept).sum(-1, keepdim=True) / kept.sum()
        variance = ((x - mean) ** 2 * kept).sum(-1, keepdim=True) / kept.sum()
        standard = (x - mean) / (variance + shape.layer_norm_eps).sqrt()
        y: Tensor = (standard * w[f"{name}.weight"] + w[f"{name}.bias"]) * kept
        return y

    left = _stem(w, images.double(), shape)
    patches: Tensor = _patches(left, *w["patch_embed.proj.weight"].shape[2:])
    x: Tensor = patches @ w["patch_embed.proj.weight"].flatten(1).T
    x = x + w["patch_embed.proj.bias"]  # (B, N - 1, E)
    prefix = [w[name].repeat(len(x), 1, 1) for name in ("cls_token", "dist_token", "reg_token") if name in w]
    x = (torch.cat([*prefix, x], dim=1) + w["pos_embed"]) * kept  # (B, N, E)
    if "norm_pre.weight" in w:
        x = norm(x, "norm_pre")
    for l in range(shape.depth):
        if head_masks[l].any():
            qkv = linear(norm(x, f"blocks.{l}.norm1"), f"blocks.{l}.attn.qkv")
            norms = [partial(_head_norm, w, f"blocks.{l}.attn.{part}_norm", shape.layer_norm_eps) for part in "qk"]
            x = x + linear(_attention(qkv, head_masks[l], norms), f"blocks.{l}.attn.proj") * kept
        if shape.norm_between_halves:
            x = norm(x, f"blocks.{l}.norm2")
        if channel_masks[l].any():
            read = x if shape.norm_between_halves else norm(x, f"blocks.{l}.norm2")
            hidden = linear(read, f"blocks.{l}.mlp.fc1")
            hidden = _activated(hidden, shape) * channel_masks[l]  # (B, N, c)
            x = x + linear(hidden, f"blocks.{l}.mlp.fc2") * kept
    return _pooled(x, sum(tokens.shape[1] for tokens in prefix), shape, linear, norm)


def _pooled(
    x: Tensor,
    num_prefix: int,
    shape: Shape,
    linear: Callable[[Tensor, str], Tensor],
    norm: Callable[[Tensor, str], Tensor],
) -> Tensor:
    """Return the pooled tokens (B, P, E) of the stream (B, N, E), by the network's layers and norms."""
    if shape.pooling == "class_token":
        return norm(x[:, : 1 + shape.distilled], "norm")
    patches = x[:, num_prefix:]
    if shape.norm_after_pooling:
        return norm(patches.sum(1, keepdim=True) / patches.shape[1], "norm")
    patches = norm(patches, "norm")
    if shape.pooling == "sequence":
        scores = (linear(patches, "attention_pool")).exp()  # (B, N, 1)
        return (scores * patches).sum(1, keepdim=True) / scores.sum(1, keepdim=True)
    return patches.sum(1, keepdim=True) / patches.shape[1]


def plain_logits(
    model: VisionTransformer,
    images: Tensor,
    head_masks: Sequence[Tensor],
    channel_masks: Sequence[Tensor],
    dim_mask: Tensor | None = None,
) -> Tensor:
    """Return logits (B, C) in float64, the mean over the pooled tokens' head layers; see `plain_pooled`."""
    pooled = plain_pooled(model, images, head_masks, channel_masks, dim_mask)
    layers = [model.head, model.head_dist] if model.shape.distilled else [model.head]
    logits = [pooled[:, i] @ layer.weight.double().T + layer.bias.double() for i, layer in enumerate(layers)]
    return torch.stack(logits).mean(0)


def _stem(w: State, x: Tensor, shape: Shape) -> Tensor:
    """Return what the stem leaves of images (B, channels, H, W): windows written out, padded by half the kernel."""
    kernel, stride, border = shape.stem_kernel, shape.stem_stride, shape.stem_kernel // 2
    for i in range(len(shape.stem_channels)):
        weight, bias = w[f"patch_embed.stem.{i}.weight"], w[f"patch_embed.stem.{i}.bias"]
        windows = _windows(x, kernel, stride, border)  # (B, channels, H, W, k, k)
        x = (windows[:, None] * weight[:, :, None, None]).sum((2, -2, -1)) + bias[:, None, None]
        x = _ACTIVATIONS["relu" if shape.stem_max_pool else "gelu"](x)
        if shape.stem_max_pool:
            # A border of zeros is no more than what a ReLU leaves.
            x = _windows(x, 3, 2, 1).amax((-2, -1))
    return x


def _windows(x: Tensor, size: int, stride: int, border: int) -> Tensor:
    """Return the windows of images that have a border of zeros, (B, channels, H, W, size, size)."""
    padded = torch.zeros(*x.shape[:2], x.shape[2] + 2 * border, x.shape[3] + 2 * border, dtype=x.dtype)
    padded[:, :, border : border + x.shape[2], border : border + x.shape[3]] = x
    return padded.unfold(2, size, stride).unfold(3, size, stride)


def _patches(images: Tensor, height: int, width: int) -> Tensor:
    """Cut images into rows of patches, (B, N - 1, channels x height x width)."""
    down, across = range(0, images.shape[-2], height), range(0, images.shape[-1], width)
    return torch.stack([images[:, :, i : i + height, j : j + width].flatten(1) for i in down for j in across], dim=1)


def _activated(x: Tensor, shape: Shape) -> Tensor:
    """Return hidden channels (B, N, c); of a gated MLP x has the gates of all channels, then their values."""
    activate, width = _ACTIVATIONS[shape.activation], x.shape[-1] // (1 + shape.gated_mlp)
    return activate(x[..., :width]) * x[..., width:] if shape.gated_mlp else activate(x)


def _head_norm(w: State, name: str, eps: float, x: Tensor) -> Tensor:
    """Return queries or keys of one head (B, N, hd) behind their norm, where there is one."""
    if f"{name}.weight" not in w:
        return x
    if f"{name}.bias" in w:
        x = x - x.mean(-1, keepdim=True)
    standard = x / ((x * x).mean(-1, keepdim=True) + eps).sqrt()
    y: Tensor = standard * w[f"{name}.weight"] + w.get(f"{name}.bias", torch.zeros(1))
    return y


def _attention(qkv: Tensor, mask: Tensor, norms: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """Return each head's output times its mask, side by side (B, N, h x hd), one head after the other.

    Norms are those of queries and of keys.
    """
    outputs = []
    q, k, v = (part.chunk(len(mask), dim=-1) for part in qkv.chunk(3, dim=-1))  # h of (B, N, hd) each
    for head, gate in enumerate(mask):
        queries, keys = norms[0](q[head]), norms[1](k[head])
        scores = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5  # (B, N, N)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        outputs.append(weights @ v[head] * gate)
    return torch.cat(outputs, dim=-1)


def stored_logits(data: DistillationData) -> Tensor:
    """Return the teacher's logits (K, B, C) of data with so few classes that they are stored."""
    assert isinstance(data.teacher_logits, Tensor)
    return data.teacher_logits
