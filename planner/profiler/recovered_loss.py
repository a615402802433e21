"""Loss of a sub-model right after its reconstruction in closed form, on images that the reconstruction did not see.

It tells in seconds what a removal costs once the rest has made up for it, without a training and without labels: the
KL divergence of the sub-model's prediction from the whole model's.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import Field
from torch.nn import functional as F

from planner.errors import InputError
from planner.network.data import Samples
from planner.network.evaluation import apply_in_batches
from planner.network.reconstruction import reconstruct
from planner.network.surgery import Selection
from planner.network.vit import VisionTransformer
from planner.profiler.importance_sums import labels_hash, weights_hash
from planner.schema import Frozen, read_document, write_document

# Images for the reconstruction, and as many others for the loss.
_MAX_IMAGES = 320


class LossRecord(Frozen):
    """Losses measured so far, by a hash of what the sub-model keeps, and the measurement that they belong to."""

    weights: str
    labels: str
    seed: int
    losses: dict[str, float] = Field(default_factory=dict)


class RecoveredLoss:
    """Losses of sub-models of one whole model, kept in a file from which an interrupted measurement continues."""

    def __init__(
        self,
        whole: VisionTransformer,
        samples: Samples,
        work: Path,
        seed: int,
        on_loss: Callable[[int], None] = lambda num_done: None,
    ) -> None:
        """Draw the images.

        Args:
            whole: Model from which sub-models are cut.
            samples: Training images, at least one.
            work: A file that holds the losses; it may exist already.
            seed: Seed of the draw.
            on_loss: Called with the number of losses measured, or found in the file, after each.

        Raises:
            InputError: If the file belongs to another measurement.
        """
        drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[: 2 * _MAX_IMAGES]
        half = (len(drawn) + 1) // 2
        self.whole, self.work, self.on_loss = whole, work, on_loss
        self.images = samples.images[drawn[:half]]
        # Of a single image there is no other.
        self.held_out = samples.images[drawn[half:] if half < len(drawn) else drawn]
        self.whole_logits = apply_in_batches(whole, self.held_out)
        self.record = self._read_record(LossRecord(weights=weights_hash(whole), labels=labels_hash(drawn), seed=seed))
        self.num_done = 0

    def _read_record(self, fresh: LossRecord) -> LossRecord:
        if not self.work.exists():
            return fresh
        record = read_document(self.work, LossRecord)
        if record.replace(losses={}) != fresh:
            raise InputError(f"{self.work}: holds the losses of another measurement; delete it to begin again.")
        return record

    def __call__(self, selection: Selection) -> float:
        """Return the loss [nat] of the sub-model that keeps this selection, reconstructed."""
        key = hashlib.sha256(json.dumps(asdict(selection)).encode()).hexdigest()
        if key not in self.record.losses:
            sub_model = selection.cut(self.whole)
            reconstruct(sub_model, self.whole, selection, self.images)
            log_p, log_whole = (
                x.log_softmax(1) for x in (apply_in_batches(sub_model, self.held_out), self.whole_logits)
            )
            loss = float(F.kl_div(log_p, log_whole, reduction="batchmean", log_target=True))
            self.record = self.record.replace(losses={**self.record.losses, key: loss})
            write_document(self.work, self.record)
        self.num_done += 1
        self.on_loss(self.num_done)
        return self.record.losses[key]
