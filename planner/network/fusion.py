"""Fusion: a small MLP that classifies from all devices' features, side by side.

Legend: B images, D devices, F embed dims of all devices together, H hidden units, C classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Less is rounding.
_MIN_STD = 1e-4


class Fusion(nn.Module):
    """Standardise each feature, concatenate, two linear layers.

    The features of a device that does not answer count as their means, which are zero after standardising.
    """

    def __init__(self, embed_dims: Sequence[int], hidden: int, num_classes: int) -> None:
        super().__init__()
        self.embed_dims = tuple(embed_dims)
        total = sum(embed_dims)
        self.mean = nn.Parameter(torch.zeros(total), requires_grad=False)
        self.std = nn.Parameter(torch.ones(total), requires_grad=False)
        self.fc1 = nn.Linear(total, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def standardise(self, features: Tensor) -> None:
        """Set mean and standard deviation to those of features (B, F) of training images.

        A feature that does not vary, as of a sub-model without any head, whose class token sees no patch, stays as it
        is: the least shift of it in a later training would otherwise drown all others.
        """
        self.mean.copy_(features.mean(0))
        std = features.std(0)
        self.std.copy_(torch.where(std > _MIN_STD, std, 1.0))

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Return logits (B, C).

        Args:
            features: (B, F), the devices in their order.
            present: Mask of the devices that answered, (B, D) of 0 and 1; all unless given.
        """
        return self.classify(self.hidden(features, present))

    def hidden(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Return hidden units (B, H), before their GELU."""
        hidden: Tensor = self.fc1(self.standardised(features, present))
        return hidden

    def standardised(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Return standardised features (B, F), zero where a device did not answer."""
        x = (features - self.mean) / self.std
        if present is not None:
            x = x * present.repeat_interleave(torch.tensor(self.embed_dims, device=x.device), dim=1)
        return x

    def classify(self, hidden: Tensor) -> Tensor:
        """Return logits (B, C) of hidden units (B, H)."""
        logits: Tensor = self.fc2(F.gelu(hidden))
        return logits


def fresh_fusion(features: Tensor, embed_dims: Sequence[int], hidden: int, num_classes: int, seed: int) -> Fusion:
    """Return a fusion with random weights that standardises features (B, F) of training images."""
    generator = torch.Generator().manual_seed(seed)
    fusion = Fusion(embed_dims, hidden, num_classes)
    with torch.no_grad():
        for layer in (fusion.fc1, fusion.fc2):
            layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
        fusion.standardise(features)
    return fusion
