"""How much each class needs each head and hidden channel: Fisher information of their gates.

Every head and channel has a gate of 1 on its output. The squared derivative of an image's loss
with respect to a gate says, to second order, what the loss would rise by if the gate were closed.
One forward and one backward pass give all of them. The importance of a unit for a class is its
mean share of an image's squares over the images of that class: shares, because a model that has
learned its training images has a few hard ones whose squares would drown all others.

Legend: B images, C classes, L blocks, H heads, c hidden channels, G channel groups.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from planner.network.data import Samples
from planner.network.vit import VisionTransformer

Floats = NDArray[np.float64]

_BATCH = 128
_DECIMALS = 7


@dataclass(frozen=True)
class UnitImportance:
    """Importance of every unit for every class: heads (C, L, H), channels (C, L, c)."""

    heads: Floats
    channels: Floats


def fisher(model: VisionTransformer, samples: Samples) -> UnitImportance:
    """Measure the importance of every head and channel, over training images.

    Source:
        Theis et al., arXiv 1801.05787: Fisher pruning; here per class, and each image counts the same.
    """
    shape = model.shape
    L, H, c = shape.depth, shape.num_heads[0], shape.hidden_dim[0]
    heads = torch.zeros(shape.num_classes, L, H, dtype=torch.float64)
    channels = torch.zeros(shape.num_classes, L, c, dtype=torch.float64)
    for batch in torch.arange(len(samples)).split(_BATCH):
        labels = samples.labels[batch]
        gates = [
            (torch.ones(len(batch), H, requires_grad=True), torch.ones(len(batch), c, requires_grad=True))
            for _ in range(L)
        ]
        # Summed, so that each image's gates have that image's derivative alone.
        loss = F.cross_entropy(model(samples.images[batch], gates), labels, reduction="sum")
        grads = torch.autograd.grad(loss, [gate for pair in gates for gate in pair])
        of_heads, of_channels = (torch.stack(grads[i::2], 1).double() ** 2 for i in (0, 1))  # (B, L, H or c)
        total = of_heads.sum((1, 2), keepdim=True) + of_channels.sum((1, 2), keepdim=True)
        total.clamp_min_(torch.finfo(torch.float64).tiny)
        heads.index_add_(0, labels, of_heads / total)
        channels.index_add_(0, labels, of_channels / total)
    counts = torch.bincount(samples.labels, minlength=shape.num_classes).clamp_min(1).double()[:, None, None]
    return UnitImportance((heads / counts).numpy(), (channels / counts).numpy())


def group_channels(importance: UnitImportance, size: int) -> list[list[list[int]]]:
    """Put each block's channels into groups of a size, like with like; [L][G][size].

    Ranked by the importance that a channel has for the class that needs it most, as a share of
    all that the class needs: a group is then worth keeping, or not, as a whole.
    """
    totals = importance.heads.sum(axis=(1, 2)) + importance.channels.sum(axis=(1, 2))
    most = (importance.channels / totals[:, None, None]).max(axis=0)  # (L, c)
    groups = []
    for values in most:
        order = np.argsort(-values, kind="stable")
        groups.append([sorted(order[i : i + size].tolist()) for i in range(0, len(order), size)])
    return groups


def normalised(
    importance: UnitImportance, groups: list[list[list[int]]]
) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Return the shares of heads [C][L][H] and groups [C][L][G]; both together sum to 1 for each class.

    A share is the root of a unit's Fisher information, its typical derivative: the share of the
    loss's first-order response that is kept adds up over units, as a retention must. The squares
    do not, and would give nearly everything to the few largest.
    """
    squares = np.array(
        [
            [[block[members].sum() for members in groups[l]] for l, block in enumerate(blocks)]
            for blocks in importance.channels
        ]
    )  # (C, L, G)
    of_heads, of_groups = np.sqrt(importance.heads), np.sqrt(squares)
    totals = of_heads.sum(axis=(1, 2)) + of_groups.sum(axis=(1, 2))
    heads = np.round(of_heads / totals[:, None, None], _DECIMALS)
    shares = np.round(of_groups / totals[:, None, None], _DECIMALS)
    # What rounding took or gave goes to the largest group, so that the whole model retains all.
    left = 1 - heads.sum(axis=(1, 2)) - shares.sum(axis=(1, 2))
    for c, block in enumerate(shares):
        largest = np.unravel_index(block.argmax(), block.shape)
        shares[c][largest] = round(float(shares[c][largest] + left[c]), _DECIMALS)
    return heads.tolist(), shares.tolist()
