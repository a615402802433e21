"""Importance from gradients: one forward and one backward pass for all units together.

Every head, channel and embed dim has a gate of 1 on its output: on what the head or channel passes on, and on all
that is written to the embed dim of the residual stream. The derivative of an image's loss by a gate is, to first
order, the change of the loss when the gate is closed.

At a trained whole model that derivative says little: the loss is at its minimum, and predictions are so confident that
no single unit changes them. A thinned network has a random quarter of its gates closed, drawn anew for each image:
there the derivative shows what a unit is worth when others are missing, as in a plan.

Squared and absolute derivatives are divided by their sum, image by image: otherwise a few hard training images would
outweigh all others. Heads and channels share one sum, embed dims have another.

Legend: B images, L blocks, H heads, c hidden channels, N tokens, E embed dims.
"""

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from planner.errors import InputError
from planner.network.compute_device import mixed_precision
from planner.network.vit import Shape, VisionTransformer
from planner.profiler.importance_sums import UnitValues

# Limits of a batch: the memory of its activations [bytes], and its images.
_MAX_BATCH_BYTES = 2**30
_MAX_BATCH_IMAGES = 128
# Floats kept for the backward pass, per token of a block: this many embed dims, and this many hidden dims.
_SAVED_EMBED_DIMS, _SAVED_HIDDEN_DIMS = 10, 4
# Probability that a gate of a thinned network is open.
_OPEN_PROBABILITY = 0.75


def gradient_batch_size(shape: Shape) -> int:
    """Return how many images fit into a batch with a backward pass, within about 1 GiB of activations."""
    hidden = shape.rows_per_channel * sum(shape.hidden_dim)
    per_token = _SAVED_EMBED_DIMS * shape.embed_dim * shape.depth + _SAVED_HIDDEN_DIMS * hidden
    return max(1, min(_MAX_BATCH_IMAGES, _MAX_BATCH_BYTES // (4 * shape.num_tokens * per_token)))


def thinned_squared_gradients(
    model: VisionTransformer, images: Tensor, labels: Tensor, generator: torch.Generator
) -> UnitValues:
    """Return each unit's share of an image's squared derivatives in a thinned network, drawn for each image.

    Source:
        Fisher pruning as in `squared_gradients`, over thinned networks as in dropout (Srivastava et al., JMLR 15,
        2014).
    """
    gates = _random_gates(model, len(labels), generator)
    return _normalised(*(grads**2 for grads in _gate_gradients(model, images, labels, *gates)))


def loss_increases(model: VisionTransformer, images: Tensor, labels: Tensor, generator: torch.Generator) -> UnitValues:
    """Return the first-order increase of each image's loss [nat] when a unit of a thinned network is removed.

    Averaged over images this is related to the Shapley value, a binomial semivalue: the marginal contribution of a
    unit to random sets of other units, with a derivative in place of the difference.

    Source:
        Owen, Multilinear extensions of games, doi:10.1287/mnsc.18.5.64; of networks' units: Ghorbani and Zou,
        Neuron Shapley, arXiv 2002.09815.
    """
    grads = _gate_gradients(model, images, labels, *_random_gates(model, len(labels), generator))
    return UnitValues(*(-of_units for of_units in grads))


def squared_gradients(model: VisionTransformer, images: Tensor, labels: Tensor) -> UnitValues:
    """Return each unit's share of an image's squared derivatives: a diagonal of the empirical Fisher information.

    Source:
        Theis et al., arXiv 1801.05787: Fisher pruning; here per class, and each image counts the same.
    """
    return _normalised(
        *(grads**2 for grads in _gate_gradients(model, images, labels, *_open_gates(model, len(labels))))
    )


def absolute_gradients(model: VisionTransformer, images: Tensor, labels: Tensor) -> UnitValues:
    """Return each unit's share of the absolute values of an image's derivatives.

    Source:
        Molchanov et al., arXiv 1611.06440: first-order Taylor expansion.
    """
    return _normalised(
        *(grads.abs() for grads in _gate_gradients(model, images, labels, *_open_gates(model, len(labels))))
    )


def _random_gates(
    model: VisionTransformer, num_images: int, generator: torch.Generator
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Draw the gates of a thinned network for each image, block by block, those of the embed dims last."""

    def draw(size: int) -> Tensor:
        return (torch.rand(num_images, size, generator=generator) < _OPEN_PROBABILITY).float()

    gates = [(draw(h), draw(c)) for h, c in zip(model.shape.num_heads, model.shape.hidden_dim, strict=True)]
    return gates, draw(model.shape.embed_dim)


def _open_gates(model: VisionTransformer, num_images: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    sizes = zip(model.shape.num_heads, model.shape.hidden_dim, strict=True)
    gates = [(torch.ones(num_images, h), torch.ones(num_images, c)) for h, c in sizes]
    return gates, torch.ones(num_images, model.shape.embed_dim)


def _gate_gradients(
    model: VisionTransformer, images: Tensor, labels: Tensor, gates: list[tuple[Tensor, Tensor]], stream_gate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of each image's loss by its gates, in float64: heads (B, L, H), channels (B, L, c), dims.

    Args:
        model: Stays unchanged: no parameter gets a gradient.
        images: (B, channels, height, width).
        labels: (B,).
        gates: Of each block's heads (B, H) and channels (B, c).
        stream_gate: Of the embed dims, (B, E).
    """
    flat = [gate.requires_grad_() for gate in (*(gate for pair in gates for gate in pair), stream_gate)]
    # Without gradients of the parameters, no activations are kept for them.
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with mixed_precision(model):
        logits = functional_call(model, parameters, (images, gates, stream_gate))
    # In float64, where the loss of a confident prediction still has a derivative. Summed: each image has its own gates.
    loss = F.cross_entropy(logits.double(), labels, reduction="sum")
    grads = torch.autograd.grad(loss, flat)
    if not all(grad.isfinite().all() for grad in grads):
        raise InputError(
            f"an image's loss must have finite derivatives, got a loss of {loss.item():g} for {len(labels)} images: "
            "look for images or weights that are not finite."
        )
    of_heads, of_channels = (torch.stack(grads[i:-1:2], dim=1).double() for i in (0, 1))
    return of_heads, of_channels, grads[-1].double()


def _normalised(heads: Tensor, channels: Tensor, embed_dims: Tensor) -> UnitValues:
    """Return the values as shares of each image's sum: heads and channels together, embed dims by themselves."""
    tiny = torch.finfo(torch.float64).tiny
    of_units = (heads.sum((1, 2)) + channels.sum((1, 2))).clamp_min(tiny)[:, None, None]
    return UnitValues(
        heads / of_units, channels / of_units, embed_dims / embed_dims.sum(1, keepdim=True).clamp_min(tiny)
    )
