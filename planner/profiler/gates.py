"""Importance from derivatives: one forward and one backward pass for all units together.

Every head, channel and embed dim has a gate of 1 on its output: on what the head or the channel sends on, and on all
that is written to the embed dim of the residual stream. The derivative of an image's loss with respect to a gate says,
to first order, what the loss changes by if the gate is closed.

Each image's numbers are divided by their sum: a model that has learned its training images has a few hard ones, whose
derivatives would drown all others. Heads and channels are one sum, embed dims another.

Legend: B images, L blocks, H heads, c hidden channels, N tokens, E embed dims.
"""

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from planner.errors import InputError
from planner.network.vit import Shape, VisionTransformer
from planner.profiler.units import UnitValues

# What the activations of a batch may take [bytes], and the most images of one.
_BUDGET = 2**30
_MOST_IMAGES = 128
# A backward pass keeps so many floats for each token of a block: so many widths, so many hidden widths.
_KEPT_WIDTHS, _KEPT_HIDDEN = 10, 4


def batch_size(shape: Shape) -> int:
    """Return how many images fit into a batch with a backward pass, within about 1 GiB of activations."""
    per_token = _KEPT_WIDTHS * shape.embed_dim * shape.depth + _KEPT_HIDDEN * sum(shape.hidden_dim)
    return max(1, min(_MOST_IMAGES, _BUDGET // (4 * shape.num_tokens * per_token)))


def squares(model: VisionTransformer, images: Tensor, labels: Tensor) -> UnitValues:
    """Return each unit's share of an image's squared derivatives.

    Source:
        Theis et al., arXiv 1801.05787: Fisher pruning, equation 6; here per class, and each image counts the same.
    """
    return _shares(*(grads**2 for grads in derivatives(model, images, labels)))


def magnitudes(model: VisionTransformer, images: Tensor, labels: Tensor) -> UnitValues:
    """Return each unit's share of the absolute values of an image's derivatives.

    Source:
        Molchanov et al., arXiv 1611.06440: first-order Taylor expansion, section 2.2.
    """
    return _shares(*(grads.abs() for grads in derivatives(model, images, labels)))


def derivatives(model: VisionTransformer, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of each image's loss by its gates, in float64: heads (B, L, H), channels (B, L, c), dims.

    Args:
        model: Left as it is: no parameter gets a gradient.
        images: (B, channels, height, width).
        labels: (B,).
    """
    shape, B = model.shape, len(labels)
    sizes = zip(shape.num_heads, shape.hidden_dim, strict=True)
    gates = [tuple(torch.ones(B, size, requires_grad=True) for size in pair) for pair in sizes]
    stream_gate = torch.ones(B, shape.embed_dim, requires_grad=True)
    # Without gradients of the parameters, nothing is kept for them.
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    logits = functional_call(model, parameters, (images, gates, stream_gate))
    # In float64, where the loss of a sure answer still has a derivative. Summed: each image's gates have its own.
    loss = F.cross_entropy(logits.double(), labels, reduction="sum")
    grads = torch.autograd.grad(loss, [*(gate for pair in gates for gate in pair), stream_gate])
    of_heads, of_channels = (torch.stack(grads[i:-1:2], dim=1).double() for i in (0, 1))
    return of_heads, of_channels, grads[-1].double()


def _shares(heads: Tensor, channels: Tensor, embed_dims: Tensor) -> UnitValues:
    of_units = heads.sum((1, 2)) + channels.sum((1, 2))
    of_dims = embed_dims.sum(1)
    for totals in (of_units, of_dims):
        if not totals.isfinite().all():
            raise InputError(
                f"an image's derivatives must be finite, got a sum of {totals[~totals.isfinite()][0].item()}: "
                "look for images or weights that are not finite."
            )
        totals.clamp_min_(torch.finfo(torch.float64).tiny)
    of_units = of_units[:, None, None]
    return UnitValues(heads / of_units, channels / of_units, embed_dims / of_dims[:, None])
