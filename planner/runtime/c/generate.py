"""Generator of a sub-model in C: model.h and model.c, with the weights as constants.

Every network of `planner.network.vit` is generated. Three things are folded into constants: a position embedding into
each prefix token, position embedding and bias into each patch's token, and the scale of the scores into the queries, or
into their norm.

Legend: N tokens, E embed dim, h heads, D head dim, ch channels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from planner.errors import InputError
from planner.network.half_blocks import Attention
from planner.network.vit import Block, Shape, VisionTransformer
from planner.rules.c_memory import CSizes, c_arena_bytes
from planner.runtime.c.constants import Constants, Definitions
from planner.schema import ImageInput, InputDtype, Precision
from planner.schema.architecture import Activation

_DTYPES: dict[InputDtype, str] = {"uint8": "VIT_UINT8", "float32": "VIT_FLOAT32"}
_ACTIVATIONS: dict[Activation, str] = {
    "gelu": "VIT_GELU",
    "gelu_tanh": "VIT_GELU_TANH",
    "quick_gelu": "VIT_QUICK_GELU",
    "relu": "VIT_RELU",
    "silu": "VIT_SILU",
    "sigmoid": "VIT_SIGMOID",
}
_FLOAT_BYTES = 4


def model_files(network: VisionTransformer, image: ImageInput, precision: Precision) -> dict[str, str]:
    """Return the text of model.h and model.c for a sub-model.

    Args:
        network: The sub-model.
        image: Image as it is sent; the code normalises it.
        precision: Precision of the weights: float32, or int8 with a scale for each output.

    Raises:
        InputError: If the engine has no images or weights of such a type, a weight is not finite, or the arena is too
            large.
    """
    constants = Constants(precision)
    model = model_structs(network, image, constants, "model")
    return {
        "model.h": _header(network.shape, image, precision),
        "model.c": _SOURCE.format(constants=constants.text, model=model),
    }


def model_structs(network: VisionTransformer, image: ImageInput, arrays: Definitions, name: str) -> str:
    """Define all arrays of a network, and return definitions of the structs that name them, the last `vit_model`.

    Args:
        network: The sub-model.
        image: Image as it is sent.
        arrays: Where its arrays are defined.
        name: Name of the last struct, and beginning of the others'.

    Raises:
        InputError: As `model_files` says.
    """
    if image.dtype not in _DTYPES:
        raise InputError(f"The C engine takes images of uint8 or float32, got {image.dtype}; profile the model again.")
    shape, sizes = network.shape, c_sizes(network.shape)
    fields = {**_input_fields(image, arrays), "tokens": arrays.floats("tokens", _tokens(network))}
    convolutions = [_convolution(layer, f"stem_{i}", arrays) for i, layer in enumerate(network.patch_embed.stem)]
    fields["patch"] = arrays.linear("patch", _filters(network.patch_embed.proj))
    blocks = [_block(block, f"block_{l}", arrays) for l, block in enumerate(network.blocks)]
    structs = [_struct_array("vit_block", f"{name}_blocks", blocks)]
    if convolutions:
        structs.append(_struct_array("vit_linear", f"{name}_convolutions", convolutions))
        structs.append(_stem(shape, name))
    if shape.pooling == "sequence":
        layer = _linear(network.attention_pool, "attention_pool", arrays)
        structs.append(f"static const vit_linear {name}_pool_scores = {layer};\n")
    if shape.norm_before_blocks:
        norm = _norm(network.norm_pre, "first_norm", arrays)
        structs.append(f"static const vit_norm {name}_first_norm = {norm};\n")
    if shape.qk_norm is not None:
        norms = [_head_norms(block, f"block_{l}", arrays) for l, block in enumerate(network.blocks)]
        structs.append(_struct_array("vit_head_norms", f"{name}_head_norms", norms))
    model = _MODEL.format(
        name=name,
        stem=f"&{name}_stem" if convolutions else "NULL",
        patch_height=sizes.patch_sides[0],
        patch_width=sizes.patch_sides[1],
        num_tokens=shape.num_tokens,
        num_prefix=shape.num_prefix_tokens,
        embed_dim=shape.embed_dim,
        head_dim=shape.head_dim,
        num_blocks=shape.depth,
        first_norm=f"&{name}_first_norm" if shape.norm_before_blocks else "NULL",
        head_norms=f"{name}_head_norms" if shape.qk_norm is not None else "NULL",
        norm_between_halves=int(shape.norm_between_halves),
        activation=_ACTIVATIONS[shape.activation],
        last_norm=_norm(network.norm, "last_norm", arrays),
        pooling=_pooling(shape),
        pool_scores=f"&{name}_pool_scores" if shape.pooling == "sequence" else "NULL",
        num_pooled=shape.num_pooled_tokens,
        eps=shape.layer_norm_eps,
        tile=sizes.tile,
        arena=arena_bytes(shape) // _FLOAT_BYTES,
        **fields,
    )
    return "\n".join([*structs, model])


def arena_bytes(shape: Shape) -> int:
    """Return the arena [bytes] of a network.

    Raises:
        InputError: If it is too large.
    """
    return c_arena_bytes(c_sizes(shape), shape.num_heads, shape.hidden_dim)


def c_sizes(shape: Shape) -> CSizes:
    """Return the sizes of a network that its memory in the engine depends on."""
    return CSizes(
        num_tokens=shape.num_tokens,
        embed_dim=shape.embed_dim,
        head_dim=shape.head_dim,
        stem=shape.stem,
        image_sides=shape.image_sides,
        patch_sides=shape.projected_patch,
        norm_before_blocks=shape.norm_before_blocks,
        rows_per_channel=shape.rows_per_channel,
        qk_norm_size=shape.qk_norm_size,
        norm_between_halves=shape.norm_between_halves,
        has_sequence_pooling=shape.pooling == "sequence",
    )


_HEADER = """\
/* Sub-model of {num_blocks} blocks, generated: its weights are constants in model.c. */
#ifndef MODEL_H
#define MODEL_H

#include "vit.h"

#define MODEL_PRECISION "{precision}"
#define MODEL_INPUT_DTYPE "{dtype}"
#define MODEL_INPUT_CHANNELS {channels}
#define MODEL_INPUT_HEIGHT {height}
#define MODEL_INPUT_WIDTH {width}
#define MODEL_INPUT_BYTES {input_bytes}
#define MODEL_NUM_FEATURES {features}
#define MODEL_ARENA_BYTES {arena_bytes}

extern const vit_model model;

/* Write MODEL_NUM_FEATURES features of an image, (channels, height, width) of MODEL_INPUT_DTYPE in the machine's byte
 * order, at any address. arena: MODEL_ARENA_BYTES bytes, aligned as floats, of which nothing is kept. */
void model_infer(const void *image, float *features, void *arena);

#endif
"""

_SOURCE = """\
#include "model.h"

#include <stdint.h>

{constants}
{model}
void model_infer(const void *image, float *features, void *arena)
{{
    vit_features(&model, image, features, arena, NULL);
}}
"""

_MODEL = """\
const vit_model {name} = {{
    .input = {{{dtype}, {channels}, {height}, {width}, {factor}, {offset}}},
    .stem = {stem},
    .patch_height = {patch_height},
    .patch_width = {patch_width},
    .patch = {patch},
    .tokens = {tokens},
    .num_tokens = {num_tokens},
    .num_prefix = {num_prefix},
    .embed_dim = {embed_dim},
    .head_dim = {head_dim},
    .num_blocks = {num_blocks},
    .first_norm = {first_norm},
    .blocks = {name}_blocks,
    .head_norms = {head_norms},
    .norm_between_halves = {norm_between_halves},
    .activation = {activation},
    .last_norm = {last_norm},
    .pooling = {pooling},
    .pool_scores = {pool_scores},
    .num_pooled = {num_pooled},
    .eps = {eps:.9g}f,
    .tile = {tile},
    .arena = {arena},
}};
"""


def _header(shape: Shape, image: ImageInput, precision: Precision) -> str:
    channels, height, width = image.shape
    return _HEADER.format(
        num_blocks=shape.depth,
        precision=precision,
        dtype=image.dtype,
        channels=channels,
        height=height,
        width=width,
        input_bytes=image.num_bytes,
        features=shape.embed_dim,
        arena_bytes=arena_bytes(shape),
    )


def _input_fields(image: ImageInput, arrays: Definitions) -> dict[str, Any]:
    p = image.preprocessing
    mean, std = np.array(p.mean), np.array(p.std)
    channels, height, width = image.shape
    return {
        "dtype": _DTYPES[image.dtype],
        "channels": channels,
        "height": height,
        "width": width,
        # (value * scale - mean) / std, as `planner.network.export` has it.
        "factor": arrays.floats("input_factor", p.scale / std),
        "offset": arrays.floats("input_offset", mean / std),
    }


def _tokens(network: VisionTransformer) -> NDArray[np.float32]:
    """Return what tokens begin with, (N, E): prefix tokens, or the bias of patches, and position embeddings."""
    bias = _array(network.patch_embed.proj.bias)
    shape = network.shape
    prefix = [_array(token)[0] for token in network.prefix_tokens()]
    num_patches = shape.num_tokens - shape.num_prefix_tokens
    start: NDArray[np.float32] = np.concatenate([*prefix, np.tile(bias, (num_patches, 1))])
    tokens: NDArray[np.float32] = start + _array(network.pos_embed)[0]
    return tokens


def _block(block: nn.Module, name: str, arrays: Definitions) -> str:
    """Define a block's arrays and return the initialiser of its struct."""
    assert isinstance(block, Block)
    heads, hidden, fields = 0, 0, []
    if block.attn is not None:
        heads = block.attn.num_heads
        fields += [
            f".attention_norm = {_norm(block.norm1, f'{name}_norm1', arrays)}",
            f".qkv = {_qkv(block.attn, name, arrays)}",
            f".proj = {_linear(block.attn.proj, f'{name}_proj', arrays, column_parts=heads)}",
        ]
    if block.mlp is not None or block.norm_is_between:
        fields.append(f".mlp_norm = {_norm(block.norm2, f'{name}_norm2', arrays)}")
    if block.mlp is not None:
        hidden = block.mlp.fc2.in_features
        fields += [
            f".fc1 = {_linear(block.mlp.fc1, f'{name}_fc1', arrays)}",
            f".fc2 = {_linear(block.mlp.fc2, f'{name}_fc2', arrays)}",
        ]
    return "{" + ",\n     ".join([f".heads = {heads}, .hidden = {hidden}", *fields]) + "}"


def _qkv(attention: Attention, name: str, arrays: Definitions) -> str:
    h, D = attention.num_heads, attention.head_dim
    matrix, bias = _array(attention.qkv.weight).copy(), _array(attention.qkv.bias).copy()
    if not attention.has_qk_norm:
        matrix[: h * D] *= D**-0.5
        bias[: h * D] *= D**-0.5
    return arrays.linear(f"{name}_qkv", matrix, bias, row_parts=3 * h)


def _linear(layer: nn.Linear, name: str, arrays: Definitions, column_parts: int = 1) -> str:
    return arrays.linear(name, _array(layer.weight), _array(layer.bias), column_parts=column_parts)


def _norm(norm: nn.Module, name: str, arrays: Definitions, scale: float = 1.0) -> str:
    """Define the arrays of a norm whose output is scaled; an RMS norm has no bias."""
    weight, bias = (
        "NULL" if values is None else arrays.floats(f"{name}_{end}", _array(values) * scale)
        for end, values in (("weight", norm.weight), ("bias", getattr(norm, "bias", None)))
    )
    return f"{{{weight}, {bias}}}"


def _head_norms(block: nn.Module, name: str, arrays: Definitions) -> str:
    """Define the norms of a block's queries and keys; without heads it has none."""
    assert isinstance(block, Block)
    if block.attn is None:
        return "{{NULL, NULL}, {NULL, NULL}}"
    query = _norm(block.attn.q_norm, f"{name}_q_norm", arrays, block.attn.head_dim**-0.5)
    return f"{{{query}, {_norm(block.attn.k_norm, f'{name}_k_norm', arrays)}}}"


def _convolution(layer: nn.Module, name: str, arrays: Definitions) -> str:
    assert isinstance(layer, nn.Conv2d)
    return arrays.linear(name, _filters(layer), _array(layer.bias))


def _stem(shape: Shape, name: str) -> str:
    """Return the definition of a stem, whose convolutions are defined before."""
    stem = shape.stem
    fields = f"{name}_convolutions, {len(stem.channels) - 1}, {stem.kernel}, {stem.stride}, {int(stem.max_pool)}"
    return f"static const vit_stem {name}_stem = {{{fields}}};\n"


def _filters(convolution: nn.Conv2d) -> NDArray[np.float32]:
    """Return the weights of a convolution as a matrix, whose columns are in the order (height, width, ch)."""
    weight = _array(convolution.weight)  # (E, ch, height, width)
    matrix: NDArray[np.float32] = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return matrix


def _pooling(shape: Shape) -> str:
    if shape.pooling == "class_token":
        return "VIT_FIRST_TOKENS"
    if shape.pooling == "sequence":
        return "VIT_WEIGHTED_MEAN"
    return "VIT_NORMALISED_MEAN" if shape.norm_after_pooling else "VIT_MEAN_OF_NORMALISED"


def _struct_array(c_type: str, name: str, initialisers: list[str]) -> str:
    body = ",\n    ".join(initialisers)
    return f"static const {c_type} {name}[] = {{\n    {body}}};\n"


def _array(tensor: Any) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return values
