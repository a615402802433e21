"""A small network whose importance is measured, and the labels of its images."""

import torch

from planner.network.vit import Shape

SHAPE = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(2, 2), hidden_dim=(5, 5))


LABELS = torch.tensor([0, 2, 1, 2, 0, 2])


PARTS = ("heads", "channels", "embed_dims")


PART_SIZES = ((2, 2), (2, 5), (8,))
