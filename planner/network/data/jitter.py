"""Small random changes of images, so that a training sees each a little differently every time."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from planner.schema import Training


@dataclass(frozen=True)
class Jitter:
    """Random small shifts [pixels] and rotations [degrees], up to these."""

    shift: float
    rotation: float

    @classmethod
    def of(cls, training: Training | None) -> "Jitter":
        """Return the jitter that a model was trained with; none where that is not known."""
        return cls(0.0, 0.0) if training is None else cls(training.max_shift_pixels, training.max_rotation_degrees)

    @property
    def moves(self) -> bool:
        """Whether it changes anything."""
        return bool(self.shift or self.rotation)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draws = 2 * torch.rand(3, len(images), generator=generator) - 1
        angle = draws[0] * math.radians(self.rotation)
        dx, dy = draws[1:] * self.shift * 2 / images.shape[-1]
        rows = (torch.stack([angle.cos(), -angle.sin(), dx], 1), torch.stack([angle.sin(), angle.cos(), dy], 1))
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
