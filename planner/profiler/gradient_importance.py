"""Importance from derivatives: one forward and one backward pass for all units together.

Every head, channel and embed dim has a gate of 1 on its output: on what the head or the channel sends on, and on all
that is written to the embed dim of the residual stream. The derivative of an image's loss with respect to a gate says,
to first order, what the loss changes by if the gate is closed.

At the whole model, a trained one, that derivative says little: the loss is at its least, and answers are so sure that
no single unit moves them. A thinned network has a quarter of its gates closed, others for each image: there it says
what a unit is worth when others are gone, as in a plan.

Squares and sizes of derivatives are divided by their sum, image by image: a few hard training images would drown all
others. Heads and channels are one sum, embed dims another.

Legend: B images, L blocks, H heads, c hidden channels, N tokens, E embed dims.
"""

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from planner.errors import InputError
from planner.network.vit import Shape, VisionTransformer
from planner.profiler.importance_sums import UnitValues

# What the activations of a batch may take [bytes], and the most images of one.
_BUDGET = 2**30
_MOST_IMAGES = 128
# A backward pass keeps so many floats for each token of a block: so many widths, so many hidden widths.
_KEPT_WIDTHS, _KEPT_HIDDEN = 10, 4
# The share of a thinned network's gates that are open.
_OPEN = 0.75


def gradient_batch_size(shape: Shape) -> int:
    """Return how many images fit into a batch with a backward pass, within about 1 GiB of activations."""
    per_token = _KEPT_WIDTHS * shape.embed_dim * shape.depth + _KEPT_HIDDEN * sum(shape.hidden_dim)
    return max(1, min(_MOST_IMAGES, _BUDGET // (4 * shape.num_tokens * per_token)))


def thinned_squares(model: VisionTransformer, images: Tensor, labels: Tensor, generator: torch.Generator) -> UnitValues:
    """Return each unit's share of an image's squared derivatives in a thinned network, drawn for each image.

    Source:
        Fisher pruning as in `squares`, over thinned networks as in dropout (Srivastava et al., JMLR 15, 2014).
    """
    return _shares(*(grads**2 for grads in _derivatives(model, images, labels, *_drawn(model, len(labels), generator))))


def rises(model: VisionTransformer, images: Tensor, labels: Tensor, generator: torch.Generator) -> UnitValues:
    """Return what each image's loss rises by [nat], to first order, where a unit of a thinned network is closed.

    Averaged over images this is a kin of the Shapley value, a binomial semivalue: what a unit adds to random sets of
    other units, with a derivative in place of the difference.

    Source:
        Owen, Multilinear extensions of games, doi:10.1287/mnsc.18.5.64; of networks' units: Ghorbani and Zou,
        Neuron Shapley, arXiv 2002.09815.
    """
    grads = _derivatives(model, images, labels, *_drawn(model, len(labels), generator))
    return UnitValues(*(-of_units for of_units in grads))


def squares(model: VisionTransformer, images: Tensor, labels: Tensor) -> UnitValues:
    """Return each unit's share of an image's squared derivatives.

    Source:
        Theis et al., arXiv 1801.05787: Fisher pruning; here per class, and each image counts the same.
    """
    return _shares(*(grads**2 for grads in _derivatives(model, images, labels, *_all_open(model, len(labels)))))


def magnitudes(model: VisionTransformer, images: Tensor, labels: Tensor) -> UnitValues:
    """Return each unit's share of the absolute values of an image's derivatives.

    Source:
        Molchanov et al., arXiv 1611.06440: first-order Taylor expansion.
    """
    return _shares(*(grads.abs() for grads in _derivatives(model, images, labels, *_all_open(model, len(labels)))))


def _drawn(
    model: VisionTransformer, num_images: int, generator: torch.Generator
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Draw the gates of a thinned network for each image, block by block, those of the embed dims last."""

    def drawn(size: int) -> Tensor:
        return (torch.rand(num_images, size, generator=generator) < _OPEN).float()

    gates = [(drawn(h), drawn(c)) for h, c in zip(model.shape.num_heads, model.shape.hidden_dim, strict=True)]
    return gates, drawn(model.shape.embed_dim)


def _all_open(model: VisionTransformer, num_images: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    sizes = zip(model.shape.num_heads, model.shape.hidden_dim, strict=True)
    gates = [(torch.ones(num_images, h), torch.ones(num_images, c)) for h, c in sizes]
    return gates, torch.ones(num_images, model.shape.embed_dim)


def _derivatives(
    model: VisionTransformer, images: Tensor, labels: Tensor, gates: list[tuple[Tensor, Tensor]], stream_gate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of each image's loss by its gates, in float64: heads (B, L, H), channels (B, L, c), dims.

    Args:
        model: Left as it is: no parameter gets a gradient.
        images: (B, channels, height, width).
        labels: (B,).
        gates: Of each block's heads (B, H) and channels (B, c).
        stream_gate: Of the embed dims, (B, E).
    """
    flat = [gate.requires_grad_() for gate in (*(gate for pair in gates for gate in pair), stream_gate)]
    # Without gradients of the parameters, nothing is kept for them.
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    logits = functional_call(model, parameters, (images, gates, stream_gate))
    # In float64, where the loss of a sure answer still has a derivative. Summed: each image's gates have its own.
    loss = F.cross_entropy(logits.double(), labels, reduction="sum")
    grads = torch.autograd.grad(loss, flat)
    if not all(grad.isfinite().all() for grad in grads):
        raise InputError(
            f"an image's loss must have finite derivatives, got a loss of {loss.item():g} for {len(labels)} images: "
            "look for images or weights that are not finite."
        )
    of_heads, of_channels = (torch.stack(grads[i:-1:2], dim=1).double() for i in (0, 1))
    return of_heads, of_channels, grads[-1].double()


def _shares(heads: Tensor, channels: Tensor, embed_dims: Tensor) -> UnitValues:
    tiny = torch.finfo(torch.float64).tiny
    of_units = (heads.sum((1, 2)) + channels.sum((1, 2))).clamp_min(tiny)[:, None, None]
    return UnitValues(
        heads / of_units, channels / of_units, embed_dims / embed_dims.sum(1, keepdim=True).clamp_min(tiny)
    )
