"""Audit of the closed-form MAC and parameter counts: fvcore and torch count the real modules.

fvcore counts operator by operator; the closed form of `planner.network.counts` says what must come
out. They must agree to the last MAC and parameter, and torch's own counter with them, but for layer
norms, which it leaves out.

Limits: fvcore calls MACs flops. It drops operators that it does not know with a warning: here
that is an error. It does not know fused attention and RMS norms: handles for them are registered. Torch's counter
does not see fused attention on a CPU: it counts a network with attention in plain operators.
"""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from planner.errors import PlannerError
from planner.network import counts
from planner.network.counts import Counts
from planner.network.vit import Shape, VisionTransformer

# Operators that count nothing by convention (see `planner.rules.cost`).
_UNCOUNTED = {
    "aten::add",
    "aten::gelu",
    "aten::silu",
    "aten::sigmoid",
    "aten::softmax",
    "aten::max_pool2d",
    "aten::mul",
    "aten::mean",
    "aten::select",
    "aten::expand",
    "aten::unbind",
    "aten::flatten",
    "aten::unflatten",
    "aten::div",
}


def count(model: VisionTransformer) -> Counts:
    """Return fvcore's counts of a network, which must equal the closed form of its shape and torch's count.

    Raises:
        PlannerError: If fvcore meets an operator that it does not know, or the counts differ.
    """
    shape = model.shape
    image = torch.zeros(1, shape.in_channels, *shape.image_sides)
    with warnings.catch_warnings():
        # fvcore traces with TorchScript, which warns of its own end, on import and in use.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, image)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        analysis.set_op_handle("aten::rms_norm", _rms_norm_macs)
        analysis.unsupported_ops_warnings(False)
        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        macs = int(analysis.total())
        unknown = set(analysis.unsupported_ops()) - _UNCOUNTED
    if unknown:
        raise PlannerError(f"fvcore does not know {', '.join(sorted(unknown))}: its MACs would be missing.")
    counted = Counts(macs, sum(p.numel() for p in model.parameters()))
    expected = counts.exact(shape)
    if counted != expected:
        raise PlannerError(f"fvcore counts {counted}, the closed form {expected}: they must agree.")
    by_torch = _torch_macs(model, image) + counts.norm_macs(shape)
    if by_torch != counted.macs:
        raise PlannerError(f"fvcore counts {counted.macs} MACs, torch {by_torch} with norms: they must agree.")
    return counted


def _torch_macs(model: VisionTransformer, image: torch.Tensor) -> int:
    """Return torch's count: matrix products and convolutions, 2 FLOPs to the MAC."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(image)
    return int(counter.get_total_flops()) // 2


def _attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Return the MACs of fused attention: those of Q K^T, and of its softmax times V."""
    from fvcore.nn.jit_handles import get_shape

    *batch, queries, dim = get_shape(inputs[0])
    keys, value_dim = get_shape(inputs[1])[-2], get_shape(inputs[2])[-1]
    heads = 1
    for size in batch:
        heads *= size
    return int(heads * queries * keys * (dim + value_dim))


def _rms_norm_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Return the MACs of an RMS norm, by convention those of a layer norm of its size."""
    from fvcore.nn.jit_handles import get_shape

    return int(counts.NORM_MACS_PER_ELEMENT * math.prod(get_shape(outputs[0])))


def audit(whole: Shape) -> tuple[Counts, Counts, Counts]:
    """Return the counts of the fixed part, of a head and of a channel, each confirmed by fvcore.

    A head's counts are the difference between two networks, one of which has a head more in each block; a channel's
    likewise.

    Raises:
        PlannerError: If the counts differ from the closed form, or do not add up to those of the whole model.
    """
    depth = whole.depth

    def sized(heads: int, channels: int) -> Counts:
        # Not on the meta device: fvcore traces, and convolutions cannot be traced there.
        shape = replace(whole, num_heads=(heads,) * depth, hidden_dim=(channels,) * depth)
        return count(VisionTransformer(shape).eval())

    one, more_heads, more_channels = sized(1, 1), sized(2, 1), sized(1, 2)
    head = _per_block(more_heads, one, depth)
    channel = _per_block(more_channels, one, depth)
    fixed = one + head * -depth + channel * -depth
    total = count(VisionTransformer(whole).eval())
    if fixed + head * sum(whole.num_heads) + channel * sum(whole.hidden_dim) != total:
        raise PlannerError("the cost of heads and channels does not add up to that of the whole model.")
    return fixed, head, channel


def _per_block(more: Counts, less: Counts, depth: int) -> Counts:
    return Counts((more.macs - less.macs) // depth, (more.params - less.params) // depth)
