"""Loss of a sub-model right after its reconstruction in closed form, on images that the reconstruction did not see.

It tells in seconds what a removal costs once the rest has made up for it, without a training and without labels: the
KL divergence of the sub-model's prediction from the whole model's.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from planner.errors import InputError
from planner.network.data import Samples
from planner.network.evaluation import apply_in_batches
from planner.network.reconstruction import reconstruct
from planner.network.surgery import Selection
from planner.network.vit import VisionTransformer
from planner.profiler.importance_sums import labels_hash, weights_hash
from planner.profiler.work_files import read_work_file
from planner.schema import Frozen, write_document
from planner.workers import Executor, InlineExecutor, map_unordered

# Images for the reconstruction, and as many others for the loss.
_MAX_IMAGES = 320

_RESUME_HINT = "the losses that were measured are kept: give the same command again"


class LossRecord(Frozen):
    """Losses measured so far, by a hash of what the sub-model keeps, and the measurement that they belong to."""

    weights: str
    labels: str
    seed: int
    losses: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Whole model, images for the reconstruction (B, ch, H, W), others for the loss, and the logits of these (B, C)."""

    whole: VisionTransformer
    images: Tensor
    held_out: Tensor
    whole_logits: Tensor


class RecoveredLoss:
    """Losses of sub-models of one whole model, kept in a file from which an interrupted measurement continues."""

    def __init__(
        self,
        whole: VisionTransformer,
        samples: Samples,
        work: Path,
        seed: int,
        on_loss: Callable[[int], None] = lambda num_done: None,
        workers: Executor | None = None,
    ) -> None:
        """Draw the images.

        Args:
            whole: Model from which sub-models are cut.
            samples: Training images, at least one.
            work: A file that holds the losses; it may exist already.
            seed: Seed of the draw.
            on_loss: Called with the number of losses measured, or found in the file, after each.
            workers: Executor of sub-models side by side, this process if None.

        Raises:
            InputError: If the file belongs to another measurement.
        """
        drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[: 2 * _MAX_IMAGES]
        half = (len(drawn) + 1) // 2
        # Of a single image there is no other.
        held_out = samples.images[drawn[half:] if half < len(drawn) else drawn]
        self.comparison = _Comparison(whole, samples.images[drawn[:half]], held_out, apply_in_batches(whole, held_out))
        self.work, self.on_loss, self.workers = work, on_loss, workers or InlineExecutor()
        self.record = self._read_record(LossRecord(weights=weights_hash(whole), labels=labels_hash(drawn), seed=seed))
        self.num_done = 0

    def _read_record(self, fresh: LossRecord) -> LossRecord:
        if not self.work.exists():
            return fresh
        record = read_work_file(self.work, LossRecord)
        if record.replace(losses={}) != fresh:
            raise InputError(f"{self.work}: holds the losses of another measurement; delete it to begin again.")
        return record

    def __call__(self, selections: Sequence[Selection]) -> list[float]:
        """Return the losses [nat] of the sub-models that keep these selections, reconstructed."""
        by_key = {_key(selection): selection for selection in selections}
        missing = {key: selection for key, selection in by_key.items() if key not in self.record.losses}
        self._report(len(selections) - len(missing))
        calls, keys = [(selection,) for selection in missing.values()], list(missing)
        for i, loss in map_unordered(self.workers, _loss, self.comparison, calls, _RESUME_HINT):
            self.record = self.record.replace(losses={**self.record.losses, keys[i]: loss})
            write_document(self.work, self.record)
            self._report(1)
        return [self.record.losses[_key(selection)] for selection in selections]

    def _report(self, num_more: int) -> None:
        self.num_done += num_more
        self.on_loss(self.num_done)


def _key(selection: Selection) -> str:
    return hashlib.sha256(json.dumps(asdict(selection)).encode()).hexdigest()


def _loss(comparison: _Comparison, selection: Selection) -> float:
    """Return the loss of one sub-model."""
    torch.set_num_threads(1)
    sub_model = selection.cut(comparison.whole)
    reconstruct(sub_model, comparison.whole, selection, comparison.images)
    log_p, log_whole = (
        x.log_softmax(1) for x in (apply_in_batches(sub_model, comparison.held_out), comparison.whole_logits)
    )
    return float(F.kl_div(log_p, log_whole, reduction="batchmean", log_target=True))
