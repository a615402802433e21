"""Jitter: small random changes of images, so that a training sees each a little differently every time.

A move is a row of four numbers: angle [radians], shifts along x and y [pixels], and whether the image is mirrored (1)
or not (0). Moves are small enough to be stored for many images; the moved images need not be.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from planner.schema import TrainingRecord


@dataclass(frozen=True)
class Jitter:
    """Reach of random shifts [pixels] and rotations [degrees]; half of the images are mirrored, or none."""

    shift: float
    rotation: float
    mirror: bool = False

    @classmethod
    def of(cls, training: TrainingRecord | None) -> "Jitter":
        """Return the jitter with which a model was trained; none where that is not known."""
        if training is None:
            return cls(0.0, 0.0)
        return cls(training.max_shift_pixels, training.max_rotation_degrees, training.mirror)

    @property
    def is_active(self) -> bool:
        """Return whether the jitter changes anything."""
        return bool(self.shift or self.rotation or self.mirror)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return a random move for each of this many images, (count, 4)."""
        around = 2 * torch.rand(count, 3, generator=generator) - 1
        reach = torch.tensor([math.radians(self.rotation), self.shift, self.shift])
        mirrored = torch.rand(count, 1, generator=generator) < (0.5 if self.mirror else 0.0)
        return torch.cat([around * reach, mirrored.float()], 1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (B, ch, H, W), each moved as drawn."""
        return move_images(images, self.draw(len(images), generator))


def move_images(images: Tensor, moves: Tensor) -> Tensor:
    """Return images (B, ch, H, W), each moved by its row of (B, 4); border pixels are repeated beyond the border."""
    angle, dx, dy, mirrored = moves.unbind(1)
    sign = 1 - 2 * mirrored
    height, width = images.shape[-2:]
    dx, dy = dx * 2 / width, dy * 2 / height
    # Coordinates run from -1 to 1 along either side, whatever its length.
    rows = (
        torch.stack([sign * angle.cos(), sign * -angle.sin() * (height / width), sign * dx], 1),
        torch.stack([angle.sin() * (width / height), angle.cos(), dy], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
