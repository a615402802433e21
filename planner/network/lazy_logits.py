"""Logits of a teacher that only become a tensor when they are used: made anew from its pooled tokens.

Stored logits of 1.28 million images and 1,000 classes are 5 GB for each copy; the tokens of a ViT-Tiny, from which
its head layers make them, are 1 GB and are its features as well.

Legend: K copies, B images, b images of a batch, P pooled tokens, E the teacher's embed dim, C classes.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from planner.network.vit import VisionTransformer

HeadLayers = tuple[nn.Linear, ...]
"""Head layer of each pooled token."""


@dataclass(frozen=True)
class LazyLogits:
    """Logits (K, B, C) by index, of one teacher or of several that teach some of the images each."""

    pooled: Tensor  # (K, B, P, E)
    heads: tuple[HeadLayers, ...]  # of each teacher
    teacher_of: Tensor  # (B,), place of its teacher

    @classmethod
    def of(cls, teacher: VisionTransformer, pooled: Tensor) -> "LazyLogits":
        """Return the logits of a teacher, given its pooled tokens (K, B, P, E)."""
        layers = [teacher.head, teacher.head_dist] if teacher.shape.distilled else [teacher.head]
        heads = tuple(copy.deepcopy(layer).requires_grad_(False) for layer in layers)
        return cls(pooled, (heads,), torch.zeros(pooled.shape[1], dtype=torch.int16))

    def __getitem__(self, index: tuple[Tensor, Tensor]) -> Tensor:
        """Return the logits (b, C) of images, given their copies (b,) and places (b,)."""
        pooled, teacher_of = self.pooled[index], self.teacher_of[index[1]]
        logits = torch.empty(len(pooled), self.heads[0][0].out_features)
        with torch.no_grad():
            for place, layers in enumerate(self.heads):
                of_teacher = torch.where(teacher_of == place)[0]
                of_tokens = [layer(pooled[of_teacher, p]) for p, layer in enumerate(layers)]
                logits[of_teacher] = torch.stack(of_tokens).mean(0)
        return logits

    def take(self, indices: Tensor) -> "LazyLogits":
        """Return the logits of the images at these indices."""
        return replace(self, pooled=self.pooled[:, indices], teacher_of=self.teacher_of[indices])

    def taught_by(self, other: "LazyLogits", indices: Tensor) -> "LazyLogits":
        """Return these logits, but another teacher's for the images at these indices."""
        pooled, teacher_of = self.pooled.clone(), self.teacher_of.clone()
        pooled[:, indices] = other.pooled
        teacher_of[indices] = other.teacher_of + len(self.heads)
        return LazyLogits(pooled, self.heads + other.heads, teacher_of)


def saves_memory(teacher: VisionTransformer) -> bool:
    """Return whether a teacher's logits take more memory than the pooled tokens from which they are made."""
    shape = teacher.shape
    return shape.num_classes > shape.num_pooled_tokens * shape.embed_dim
