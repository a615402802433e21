"""Peak activations of a sub-model: measured, then covered by a line that is never under.

A dispatch mode sees every tensor that a forward pass makes and when it is freed; the most that
is alive at once is the peak. It is measured for blocks with more and more heads, and with more
and more channels; the profile's formula, fixed + max(per head h, per channel c), is laid over
the measurements from above.
"""

import math
import weakref
from dataclasses import dataclass, replace
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
    heads = [(h, 0, peak_bytes(_sized(whole, h, 0))) for h in range(whole.num_heads[0] + 1)]
    steps = range(0, whole.hidden_dim[0] + 1, max(1, whole.hidden_dim[0] // 8))
    channels = [(0, c, peak_bytes(_sized(whole, 0, c))) for c in steps]
    slopes = Activations(0, _steepest([(h, p) for h, _, p in heads]), _steepest([(c, p) for _, c, p in channels]))
    both = [(h, c, peak_bytes(_sized(whole, h, c))) for h in {1, whole.num_heads[0]} for c in {1, whole.hidden_dim[0]}]
    fixed = max(peak - slopes.peak(h, c) for h, c, peak in [*heads, *channels, *both])
    return replace(slopes, fixed=fixed)


def peak_bytes(shape: Shape) -> int:
    """Return the most bytes of activations that are alive at once in a forward pass of one image."""
    with torch.device("meta"):
        model = VisionTransformer(shape).eval()
        image = torch.zeros(1, shape.in_channels, shape.image_size, shape.image_size)
    with torch.inference_mode(), _Peak(model) as peak:
        model.features(image)
    return peak.most + image.numel() * image.element_size()


def _sized(whole: Shape, heads: int, channels: int) -> Shape:
    return replace(whole, num_heads=(heads,) * whole.depth, hidden_dim=(channels,) * whole.depth)


def _steepest(points: list[tuple[int, int]]) -> int:
    return max(math.ceil((q - p) / (b - a)) for (a, p), (b, q) in zip(points, points[1:], strict=False))


class _Peak(TorchDispatchMode):
    """Count the bytes of living storages, those of the parameters left out."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
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
