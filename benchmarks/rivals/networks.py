"""VGG-like convolutional networks, plain or of spiking neurons, with any number of filters in each layer.

3x3 convolutions with batch norm, max pooling behind every second one, the mean over positions as features, a linear
head. A spiking network sees the image at every time step: its neurons leak, fire and are reset by subtraction; its
features are spike rates.

Legend: B images, ch channels, H height, W width, L layers, f filters of a layer, F features, C classes.

Source:
    VGG: arXiv 1409.1556; batch norm instead of its linear layers. Neurons and surrogate gradients (arctangent):
    snnTorch, arXiv 2109.12894.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.counts import Counts

# Filters of each layer as multiples of the width.
_MULTIPLES = (1, 1, 2, 2, 4)
# Layers behind which the sides are halved.
_POOLED = (1, 3)
_KERNEL = 3
# What a membrane keeps from one time step to the next.
_LEAK = 0.9


@dataclass(frozen=True)
class ConvShape:
    """Sizes that determine a network's tensors."""

    in_channels: int
    image_sides: tuple[int, int]
    num_classes: int
    filters: tuple[int, ...]  # (L,)
    # Time steps of spiking neurons; 0: ReLU in their place.
    steps: int = 0


def filters_of_width(width: int) -> tuple[int, ...]:
    """Return the number of filters of each layer."""
    return tuple(width * multiple for multiple in _MULTIPLES)


class ConvNet(nn.Module):
    """Convolutional network of a shape."""

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        self.shape = shape
        channels = pairwise((shape.in_channels, *shape.filters))
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, _KERNEL, padding=1, bias=False) for i, o in channels)
        self.norms = nn.ModuleList(nn.BatchNorm2d(f) for f in shape.filters)
        self.head = nn.Linear(shape.filters[-1], shape.num_classes)
        self.neurons = _neurons(len(shape.filters)) if shape.steps else None

    def features(self, images: Tensor, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Return features (B, F) of images (B, ch, H, W).

        Args:
            images: The images.
            gates: Multipliers of what each layer's filters give, (B, f, 1, 1) or (1, f, 1, 1).
        """
        # Of a constant image, at every time step the same.
        first = self._current(0, images)
        if self.training:
            # With the channels last a step of training takes two thirds of the time.
            first = first.contiguous(memory_format=torch.channels_last)
        membranes: list[Tensor | None] = [None] * len(self.convolutions)
        total = torch.zeros(())
        for _ in range(max(1, self.shape.steps)):
            x = images
            for l in range(len(self.convolutions)):
                x, membranes[l] = self._fire(l, self._current(l, x) if l else first, membranes[l])
                if gates is not None:
                    x = x * gates[l]
                if l in _POOLED:
                    x = F.max_pool2d(x, 2)
            total = total + x.mean((2, 3))
        return total / max(1, self.shape.steps)

    def forward(self, images: Tensor, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Return logits (B, C); the arguments are those of `features`."""
        logits: Tensor = self.head(self.features(images, gates))
        return logits

    def _current(self, layer: int, x: Tensor) -> Tensor:
        """Return what flows into a layer's neurons, (B, f, H, W)."""
        current: Tensor = self.norms[layer](self.convolutions[layer](x))
        return current

    def _fire(self, layer: int, current: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what a layer's neurons give, and what their membranes keep."""
        if self.neurons is None:
            return F.relu(current), None
        spikes, kept = self.neurons[layer](current, torch.zeros_like(current) if membrane is None else membrane)
        return spikes, kept


def _neurons(num_layers: int) -> nn.ModuleList:
    # Imported here: only spiking networks need it.
    import snntorch

    surrogate = snntorch.surrogate.atan()
    return nn.ModuleList(snntorch.Leaky(beta=_LEAK, spike_grad=surrogate) for _ in range(num_layers))


def initialised(shape: ConvShape, seed: int) -> ConvNet:
    """Return a network with He's weights for the convolutions and small ones for the head."""
    generator = torch.Generator().manual_seed(seed)
    network = ConvNet(shape)
    with torch.no_grad():
        for convolution in network.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        network.head.weight.normal_(0, network.head.in_features**-0.5, generator=generator)
        network.head.bias.zero_()
    return network


def conv_counts(shape: ConvShape) -> Counts:
    """Return MACs and parameters of one pass, batch norms folded into their convolutions; of spiking ones of all steps.

    At every step all MACs count, also those of zeros: a processor computes them.
    """
    height, width = shape.image_sides
    params = (shape.filters[-1] + 1) * shape.num_classes
    macs = 0
    for l, (inputs, filters) in enumerate(pairwise((shape.in_channels, *shape.filters))):
        params += (_KERNEL**2 * inputs + 1) * filters
        macs += _KERNEL**2 * inputs * filters * height * width
        if l in _POOLED:
            height, width = height // 2, width // 2
    return Counts(macs * max(1, shape.steps) + shape.filters[-1] * shape.num_classes, params)
