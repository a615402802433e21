"""Peak activations of a sub-model: measured, then covered by a line that is never under.

A dispatch mode sees every tensor that a forward pass makes and when it is freed; the most that
is alive at once is the peak. It is measured for blocks with more and more heads, and with more
and more channels; the profile's formula, fixed + max(per head h, per channel c), is laid over
the measurements from above.
"""

import math
import weakref
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from planner.network.vit import Shape, VisionTransformer


@dataclass(frozen=True)
class Activations:
    """Coefficients [bytes] of the peak: fixed + max over blocks of max(per_head h, per_channel c)."""

    fixed: int
    per_head: int
    per_channel: int

    def peak(self, heads: int, channels: int) -> int:
        """Return the peak [bytes] of a network whose largest block has these."""
        return self.fixed + max(self.per_head * heads, self.per_channel * channels)


def measure(whole: Shape) -> Activations:
    """Measure the peak activations of a model's sub-models, for one image."""
    H, C = whole.num_heads[0], whole.hidden_dim[0]

    def peak(heads: int, channels: int) -> int:
        return peak_bytes(_sized(whole, heads, channels))

    # From one unit on: the first brings a whole half with it, which is not the price of a unit.
    per_head = _steepest([(h, peak(h, 0)) for h in range(1, H + 1)])
    per_channel = _steepest([(c, peak(0, c)) for c in sorted({1, *range(1, C, max(1, C // 8)), C})])
    slopes = Activations(0, per_head, per_channel)
    # The peak is convex in the channels, the line bends where heads and channels need the same:
    # what covers none, one, both sides of the bend, and all, covers everything.
    points = []
    for h in range(H + 1):
        bend = per_head * h // max(1, per_channel)
        points += [(h, c) for c in {0, 1, min(max(1, bend), C), min(bend + 1, C), C}]
    return replace(slopes, fixed=max(peak(h, c) - slopes.peak(h, c) for h, c in points))


def peak_bytes(shape: Shape) -> int:
    """Return the most bytes of activations that are alive at once in a forward pass of one image."""
    with torch.device("meta"):
        model = VisionTransformer(shape).eval()
        image = torch.zeros(1, shape.in_channels, shape.image_size, shape.image_size)
    # Not in inference mode, where attention is one operator that hides its scores (h N N).
    with torch.no_grad(), _Peak(model) as peak:
        model.features(image)
    return int(peak.most + image.numel() * image.element_size())


def _sized(whole: Shape, heads: int, channels: int) -> Shape:
    return replace(whole, num_heads=(heads,) * whole.depth, hidden_dim=(channels,) * whole.depth)


def _steepest(points: list[tuple[int, int]]) -> int:
    return max((math.ceil((q - p) / (b - a)) for (a, p), (b, q) in pairwise(points)), default=0)


class _Peak(TorchDispatchMode):
    """Count the bytes of living storages, those of the parameters left out."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._seen = weakref.WeakSet(p.untyped_storage() for p in model.parameters())
        self._parameters = list(model.parameters())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, num_bytes: int) -> None:
        self.now -= num_bytes
