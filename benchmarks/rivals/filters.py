"""Filters that matter to a class subset, and the network that keeps these alone.

A filter matters as much as the loss would change without it, to first order: for each image, the derivative of the loss
by a multiplier of what the filter gives. It is taken on images of the class subset, in the size of each image's own.

Legend: B images, f filters of a layer.

Source:
    Molchanov et al., arXiv 1611.06440 (Taylor expansion). Filters pruned by class: in the style of NNFacet and EC-SNN
    (IJCAI 2024), whose own criteria are not used.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.rivals.networks import ConvNet
from planner.network.data import Samples

_BATCH_SIZE = 128


def filter_importance(network: ConvNet, samples: Samples) -> list[Tensor]:
    """Return how much each filter of each layer matters to these images, (f,) for each layer."""
    network.eval()
    totals = [torch.zeros(f) for f in network.shape.filters]
    for at in torch.arange(len(samples)).split(_BATCH_SIZE):
        gates = [torch.ones(len(at), f, 1, 1, requires_grad=True) for f in network.shape.filters]
        # The sum: a mean would make each image's derivative depend on the size of its batch.
        loss = F.cross_entropy(network(samples.images[at], gates), samples.labels[at], reduction="sum")
        for total, gradient in zip(totals, torch.autograd.grad(loss, gates), strict=True):
            total += gradient.abs().sum((0, 2, 3))
    return totals


def most_important(importance: Sequence[Tensor], filters: Sequence[int]) -> list[Tensor]:
    """Return the indices of so many filters of each layer, those that matter most, rising."""
    return [values.topk(count).indices.sort().values for values, count in zip(importance, filters, strict=True)]


@torch.no_grad()
def keep_filters(network: ConvNet, kept: Sequence[Tensor]) -> ConvNet:
    """Return a network of the kept filters alone: it gives what the whole gives with the others at zero."""
    small = ConvNet(replace(network.shape, filters=tuple(map(len, kept)))).eval()
    inputs = torch.arange(network.shape.in_channels)
    layers = zip(network.convolutions, network.norms, small.convolutions, small.norms, kept, strict=True)
    for convolution, norm, small_convolution, small_norm, filters in layers:
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(small_convolution, nn.Conv2d)
        small_convolution.weight.copy_(convolution.weight[filters][:, inputs])
        values = {name: v[filters] if v.ndim else v for name, v in norm.state_dict().items()}
        small_norm.load_state_dict(values)
        inputs = filters
    small.head.weight.copy_(network.head.weight[:, inputs])
    small.head.bias.copy_(network.head.bias)
    return small
