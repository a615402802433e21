"""Images mixed in pairs: mixup and CutMix, as an augmentation of training data.

Legend: b images of a batch, ch channels, H height, W width.

Source:
    mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planner.network.distillation_data import Batch, DistillationData, MixedLabels, moved_copies


@dataclass(frozen=True)
class MixedData:
    """Training images of which each batch is mixed with itself in reverse, by mixup or CutMix as often.

    Batches have no outputs of a teacher: it has not seen the mixtures.
    """

    data: DistillationData
    # Parameters of the beta distributions of the shares.
    mixup: float = 0.8
    cutmix: float = 1.0

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return mixed images (b, ch, H, W), with the labels of both and the share of the first."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        copies = torch.randint(len(self.data.moves), (len(indices),), generator=generator)
        images = moved_copies(self.data.images[indices], self.data.moves[copies, indices])
        if rng.random() < 1 / 2:
            share = rng.beta(self.mixup, self.mixup)
            mixed = share * images + (1 - share) * images.flip(0)
        else:
            mixed, share = _patched(images, rng.beta(self.cutmix, self.cutmix), rng)
        labels, no_teacher = self.data.labels[indices], torch.empty(len(indices), 0)
        other = MixedLabels(labels.flip(0), torch.full((len(indices),), 1 - share))
        return Batch(mixed, labels, no_teacher, no_teacher, other)


def _patched(images: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return images with a box of the other image in each, and the share of its own that is left.

    Args:
        images: Images, (b, ch, H, W).
        share: Share of its own that each is to keep, were the box whole.
        rng: Draws the box's centre; what lies beyond the edge is cut off.
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    spans = []
    for size in (height, width):
        centre, half = int(rng.integers(size)), int(side * size) // 2
        spans.append((max(0, centre - half), min(size, centre + half)))
    (top, bottom), (left, right) = spans
    patched = images.clone()
    patched[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return patched, 1 - (bottom - top) * (right - left) / (height * width)
