"""What a profile says of fused accuracy: probes are made, kept as they are made, and calibrated.

The training part is dealt out into folds. The probes of a fold hold its images out and learn from
the others, so that together they are judged by every training image: how hard the images of one
fold happen to be would shift all that is predicted.
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
from planner.network.distillation_data import distillation_data, draw_moves, split_validation
from planner.network.training import Epoch
from planner.network.vit import VisionTransformer
from planner.profiler import trial_plans
from planner.profiler.accuracy_model import Calibration, Evidence, calibrate
from planner.profiler.trial_plans import HoldOut, TrialPlan, TrialSetting
from planner.schema import Frozen, ModelCard, Profile, read_document, write_document
from planner.schema.base import sha256_of_json

NUM_FOLDS = 3


class Probes(Frozen):
    """The probes made so far, and what they belong to."""

    draft_sha256: str
    seed: int
    probes: tuple[TrialPlan, ...] = Field(default=())


@dataclass(frozen=True)
class Accuracies:
    """What was found, and where it comes from."""

    found: Calibration
    said: str

    def put_into(self, fields: dict[str, Any]) -> Profile:
        """Return the profile of these fields with accuracies, and embed dims that retain what was found."""
        retention = self.found.embed_retention
        widths = [entry | {"embed_retention": retention[entry["embed_dim"]]} for entry in fields["widths"]]
        accuracies = {
            "widths": widths,
            "provenance": fields["provenance"] | {"recovery": self.said},
            "recovery": [row.model_dump() for row in self.found.recovery],
            "fused_accuracy": self.found.fused_accuracy.model_dump(),
        }
        return Profile.model_validate(fields | accuracies)


def measure_accuracy(
    draft: Profile,
    card: ModelCard,
    whole: VisionTransformer,
    samples: Samples,
    work: Path,
    num_probes: int,
    seed: int,
    on_epoch: Callable[[int, int], None],
) -> Accuracies:
    """Make the probes and calibrate them.

    Args:
        draft: The profile so far; embed dims retain the share of their importance that is kept.
        card: What the whole model errs on new images, and the jitter that it was trained with.
        whole: The whole model.
        samples: Training images.
        work: A file that holds the probes until the profile is finished; it may be there already.
        num_probes: The first so many of all designs.
        seed: For folds, designs and trainings.
        on_epoch: Called with the epochs done and their total, those counted as done that an early end spares.

    Raises:
        InputError: If the file belongs to another measurement.
    """
    jitter = data.Jitter.of(card.training)

    # One at a time: what the whole model says of a fold's copies is the most that is held.
    @lru_cache(maxsize=1)
    def setting(fold: int) -> TrialSetting:
        taught, judges = data.fold(samples, fold, NUM_FOLDS, seed)
        lessons, held = split_validation(distillation_data(whole, taught, jitter, seed), seed=seed)
        moves = draw_moves(len(judges), jitter, seed + 1)
        return TrialSetting(draft, whole, lessons, held, HoldOut(judges, moves), seed)

    rho = {w.embed_dim: np.array(w.embed_retention) for w in draft.widths}
    means = {e: float(kept.mean()) for e, kept in rho.items()}
    planned = trial_plans.trial_designs(len(draft.classes), means, seed)[:num_probes]
    known = _known(work, draft, seed)
    total = trial_plans.num_epochs(planned)
    on_epoch(trial_plans.num_epochs(planned[: len(known.probes)]), total)
    for i, devices in list(enumerate(planned))[len(known.probes) :]:
        # Trainings may end early: only what all probes before had at most is known.
        tick = _ticking(on_epoch, trial_plans.num_epochs(planned[:i]), total)
        probe = trial_plans.run_trial(setting(i * NUM_FOLDS // trial_plans.NUM_PROBES), devices, tick)
        known = Probes(draft_sha256=known.draft_sha256, seed=seed, probes=(*known.probes, probe))
        write_document(work, known)
    on_epoch(total, total)
    # Where the card does not say, the probes alone do: on images that it has learned, the whole model errs hardly.
    unseen = (card.accuracy or {}).get("test")
    found = calibrate(Evidence(known.probes[:num_probes], rho, None if unseen is None else 1 - unseen))
    said = f"{num_probes} plans cut, retrained and fused; {NUM_FOLDS} folds of {len(samples)} training images held out"
    return Accuracies(found, said)


def _ticking(on_epoch: Callable[[int, int], None], done: int, total: int) -> Callable[[Epoch], None]:
    """Return what counts epochs on from those that are done."""
    counted = itertools.count(done + 1)
    return lambda epoch: on_epoch(next(counted), total)


def _known(work: Path, draft: Profile, seed: int) -> Probes:
    # What was timed differs from run to run, and no probe depends on it.
    content = draft.model_dump(mode="json", exclude={"latency", "provenance"})
    fresh = Probes(draft_sha256=sha256_of_json(content), seed=seed)
    if not work.exists():
        return fresh
    known = read_document(work, Probes)
    if (known.draft_sha256, known.seed) != (fresh.draft_sha256, seed):
        raise InputError(f"{work}: holds the probes of another measurement; delete it to begin again.")
    return known
