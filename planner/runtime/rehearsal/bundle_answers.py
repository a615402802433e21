"""Answers of the bundle itself to the test images: what the fleet must answer, too.

Legend: B images, D devices, F embed dims of all devices together.
"""

import torch

from planner.arrays import Ints
from planner.executor.bundle import Bundle
from planner.network.data import Samples
from planner.network.evaluation import apply_in_batches


class BundleAnswers:
    """Class of each test image as the bundle answers it in this process, with any devices missing."""

    def __init__(self, bundle: Bundle, test: Samples) -> None:
        """Compute the features of all sub-models, once."""
        self._fusion = bundle.fusion
        self._devices = [a.device for a in bundle.plan.assignments]
        self._joined = torch.cat([apply_in_batches(m.features, test.images) for m in bundle.sub_models], dim=1)
        self._by_missing: dict[frozenset[str], Ints] = {}

    def classes(self, missing: frozenset[str]) -> Ints:
        """Return the index of the answered class of each image (B,)."""
        if missing not in self._by_missing:
            present = torch.tensor([[float(name not in missing) for name in self._devices]])  # (1, D)
            with torch.inference_mode():
                logits = self._fusion(self._joined, present.expand(len(self._joined), -1))
            self._by_missing[missing] = logits.argmax(1).numpy()
        return self._by_missing[missing]
