"""Tokens that least-squares fits look at, and their weights.

What the pooled tokens need weighs more, since head layers read them alone. The patches of an image are alike: where
there are many images, sums over a few patches of each, at other places in each, tell nearly as much as sums over all,
in a fraction of the time.

Legend: b images of a batch, N tokens of an image, t tokens that are looked at, n values of a token.
"""

import math

import torch
from torch import Tensor

from planner.network.vit import Shape

# Patches that are looked at, in all images together: some twenty for each input of a layer of ViT-Small. With fewer, a
# fit follows what only its own images have in common.
_NUM_PATCHES = 32_768
_MIN_PATCHES_PER_IMAGE = 16


class FittedTokens:
    """The prefix tokens of every image, and some of its patches.

    Images take turns through one random order of the patches, so that any few of them see all patches.

    Attributes:
        weights: Weight of each token that is looked at, (t,): those of the patches stand for all patches.
    """

    def __init__(self, shape: Shape, num_images: int, pooled_weight: float) -> None:
        """Choose the order of patches, and how many of them are looked at.

        Args:
            shape: Shape of the network.
            num_images: Number of images; of few, more patches are looked at.
            pooled_weight: Weight of a token that a head layer reads beside that of any other.
        """
        self.num_prefix = shape.num_prefix_tokens
        num_patches = shape.num_tokens - self.num_prefix
        self.order = torch.randperm(num_patches, generator=torch.Generator().manual_seed(0))
        of_image = max(_MIN_PATCHES_PER_IMAGE, math.ceil(_NUM_PATCHES / num_images))
        self.num_taken = min(of_image, num_patches)
        self.weights = torch.ones(self.num_prefix + self.num_taken)
        self.weights[self.num_prefix :] = num_patches / self.num_taken
        if shape.pooling == "class_token":
            self.weights[: shape.num_pooled_tokens] = pooled_weight

    def of_images(self, indices: Tensor) -> Tensor:
        """Return the positions of the tokens for images of these indices (b,), among all tokens, (b, t)."""
        turns = indices[:, None] * self.num_taken + torch.arange(self.num_taken)
        patches = self.order[turns % len(self.order)] + self.num_prefix
        return torch.cat([torch.arange(self.num_prefix).expand(len(indices), -1), patches], 1)


def take_tokens(x: Tensor, positions: Tensor) -> Tensor:
    """Return the tokens (b, t, n) at some positions (b, t) of each image's tokens (b, N, n)."""
    taken: Tensor = x[torch.arange(len(x))[:, None], positions]
    return taken
