"""Fusion of a deployment in numpy: equal to `planner.network.fusion.Fusion`, without torch.

Legend: F features of all devices together, H hidden units, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Floating: TypeAlias = NDArray[np.floating[Any]]


class ArrayFusion:
    """Small MLP that classifies from all devices' features, side by side.

    The features of a device that does not answer count as their means, which are zero after standardising.

    Args:
        arrays: mean and std (F,), fc1.weight (H, F), fc1.bias (H,), fc2.weight (C, H), fc2.bias (C,).
        num_features: Features of each device, in the order of the plan.
    """

    def __init__(self, arrays: Mapping[str, Floating], num_features: Sequence[int]) -> None:
        # In float32 as on the way through torch; contiguous for the products.
        self._arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
        ends = np.cumsum(num_features).tolist()
        self._slices = [slice(end - count, end) for count, end in zip(num_features, ends, strict=True)]

    def logits(self, features: Mapping[int, Floating]) -> Floating:
        """Return logits (C,).

        Args:
            features: Features of each device that answered, by its place in the plan.
        """
        a = self._arrays
        x = np.zeros_like(a["mean"])  # (F,), standardised
        for device, values in features.items():
            part = self._slices[device]
            x[part] = (values - a["mean"][part]) / a["std"][part]
        hidden = a["fc1.weight"] @ x + a["fc1.bias"]  # (H,)
        logits: Floating = a["fc2.weight"] @ _gelu(hidden) + a["fc2.bias"]
        return logits


def probabilities(logits: Floating) -> Floating:
    """Return the softmax (C,) of logits (C,)."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    result: Floating = powers / powers.sum()
    return result


def _gelu(x: Floating) -> Floating:
    result: Floating = x * 0.5 * (1 + erf(x * np.float32(0.5**0.5)))
    return result
