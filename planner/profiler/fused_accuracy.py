"""Fused accuracy of a profile: trial plans are executed, recorded one by one, and a model is fitted to them.

The training part is split into folds. The trial plans of a fold hold its images out and learn from the others, as in
cross-validation: together they are tested on every training image, since the images of a single fold may be easier or
harder than the rest and would bias all predictions.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from planner.errors import InputError
from planner.network import data
from planner.network.data import Samples
from planner.network.distillation_data import draw_moves, make_distillation_data, split_validation
from planner.network.training import Epoch
from planner.network.vit import VisionTransformer
from planner.profiler import trial_plans
from planner.profiler.accuracy_model import Calibration, Evidence, calibrate_accuracy
from planner.profiler.trial_plans import HoldOut, TrialPlan, TrialSetting
from planner.schema import Frozen, ModelCard, Profile, read_document, write_document
from planner.schema.base import sha256_of_json

NUM_FOLDS = 3


class TrialRecord(Frozen):
    """Trial plans executed so far, and the measurement that they belong to."""

    draft_sha256: str
    seed: int
    # The executed trial plans: the name is a key of the file.
    probes: tuple[TrialPlan, ...] = Field(default=())


@dataclass(frozen=True)
class MeasuredAccuracy:
    """Fitted accuracy model, and its provenance in words."""

    calibration: Calibration
    provenance: str

    def complete(self, fields: dict[str, Any]) -> Profile:
        """Return the profile of these fields with accuracies, and with the fitted retention of embed dims."""
        retention = self.calibration.embed_retention
        widths = [entry | {"embed_retention": retention[entry["embed_dim"]]} for entry in fields["widths"]]
        accuracies = {
            "widths": widths,
            "provenance": fields["provenance"] | {"recovery": self.provenance},
            "recovery": [row.model_dump() for row in self.calibration.recovery],
            "fused_accuracy": self.calibration.fused_accuracy.model_dump(),
        }
        return Profile.model_validate(fields | accuracies)


def measure_accuracy(
    draft: Profile,
    card: ModelCard,
    whole: VisionTransformer,
    samples: Samples,
    work: Path,
    num_trials: int,
    seed: int,
    on_epoch: Callable[[int, int], None],
) -> MeasuredAccuracy:
    """Execute the trial plans and fit the accuracy model to them.

    Args:
        draft: The profile so far; its embed dims retain what they do right after recovery in closed form.
        card: The whole model's accuracy on the test part, and the jitter of its training.
        whole: The whole model.
        samples: Training images.
        work: A file that holds the trial plans until the profile is finished; it may exist already.
        num_trials: Number of trial plans, the first ones of all designs.
        seed: For folds, designs and trainings.
        on_epoch: Called with the epochs done and their total; epochs saved by early stopping count as done.

    Raises:
        InputError: If the file belongs to another measurement.
    """
    jitter = data.Jitter.of(card.training)

    # One fold at a time: the teacher's logits and features for all copies are the largest data in memory.
    @lru_cache(maxsize=1)
    def fold_setting(fold: int) -> TrialSetting:
        learned, held_out = data.fold(samples, fold, NUM_FOLDS, seed)
        training, validation = split_validation(make_distillation_data(whole, learned, jitter, seed), seed=seed)
        moves = draw_moves(len(held_out), jitter, seed + 1)
        return TrialSetting(draft, whole, training, validation, HoldOut(held_out, moves), seed)

    rho = {w.embed_dim: np.array(w.embed_retention) for w in draft.widths}
    means = {e: float(kept.mean()) for e, kept in rho.items()}
    designs = trial_plans.trial_designs(len(draft.classes), means, seed)[:num_trials]
    record = _read_record(work, draft, seed)
    total = trial_plans.num_epochs(designs)
    on_epoch(trial_plans.num_epochs(designs[: len(record.probes)]), total)
    for i, devices in list(enumerate(designs))[len(record.probes) :]:
        # Counted from the maximum of all earlier trial plans, since trainings may have stopped early.
        count_epoch = _epoch_counter(on_epoch, trial_plans.num_epochs(designs[:i]), total)
        trial = trial_plans.run_trial(fold_setting(i * NUM_FOLDS // trial_plans.NUM_TRIALS), devices, count_epoch)
        record = TrialRecord(draft_sha256=record.draft_sha256, seed=seed, probes=(*record.probes, trial))
        write_document(work, record)
    on_epoch(total, total)
    # Without an accuracy on the card the trial plans alone decide: on its training images, the whole model hardly errs.
    test_accuracy = (card.accuracy or {}).get("test")
    whole_error = None if test_accuracy is None else 1 - test_accuracy
    calibration = calibrate_accuracy(Evidence(record.probes[:num_trials], rho, whole_error))
    provenance = (
        f"{num_trials} plans cut, retrained and fused; {NUM_FOLDS} folds of {len(samples)} training images held out"
    )
    return MeasuredAccuracy(calibration, provenance)


def _epoch_counter(on_epoch: Callable[[int, int], None], done: int, total: int) -> Callable[[Epoch], None]:
    """Return a callback that counts epochs, starting after those already done."""
    counted = itertools.count(done + 1)
    return lambda epoch: on_epoch(next(counted), total)


def _read_record(work: Path, draft: Profile, seed: int) -> TrialRecord:
    """Return the trial plans in a file, or an empty record if there is none."""
    # Without measured times, which differ from run to run: no trial plan depends on them.
    content = draft.model_dump(mode="json", exclude={"latency", "provenance"})
    fresh = TrialRecord(draft_sha256=sha256_of_json(content), seed=seed)
    if not work.exists():
        return fresh
    record = read_document(work, TrialRecord)
    if (record.draft_sha256, record.seed) != (fresh.draft_sha256, seed):
        raise InputError(f"{work}: holds the trial plans of another measurement; delete it to begin again.")
    return record
