"""Fused accuracy of a profile: trial plans are executed, recorded one by one, and a model is fitted to them.

Trial plans are executed in rounds, those of a round side by side. The next round's are designed by the fit to all
rounds before it, so the same trial plans come out whatever the number of workers, and however often the work is
interrupted.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from planner.errors import InputError
from planner.network import data
from planner.network.distillation_data import copies_for, make_distillation_data, split_validation
from planner.network.vit import VisionTransformer
from planner.profiler.accuracy_model import Evidence, FittedAccuracy, fit_accuracy_model
from planner.profiler.calibration import Calibration
from planner.profiler.trial_designs import ROUND_SIZE, TrialDevice, trial_design
from planner.profiler.trial_plans import TrialPlan, TrialSetting, run_trial
from planner.rules.accuracy import mean_loss
from planner.rules.retention import FleetRetention, unit_shares
from planner.schema import Frozen, ModelCard, Profile, read_document, write_document
from planner.schema.base import sha256_of_json
from planner.units import count_noun
from planner.workers import Executor, map_unordered

MAX_TRIALS = 32

_RESUME_HINT = "the trial plans that were finished are kept: give the same command again"


class TrialRecord(Frozen):
    """Trial plans executed so far, and the measurement that they belong to."""

    draft_sha256: str
    seed: int
    epochs: float
    trials: tuple[TrialPlan, ...] = Field(default=())
    # Time that the trial plans took, with as many side by side as there were workers.
    seconds: float = 0.0


@dataclass(frozen=True)
class TrialOptions:
    """Extent of the trial plans: at most so many, each retrained so long, within so much time from now on."""

    max_trials: int
    epochs: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class MeasuredAccuracy:
    """Fitted accuracy model, the retention of embed dims that was fitted with it, and its provenance in words."""

    fitted: FittedAccuracy
    embed_retention: dict[int, list[float]]
    provenance: str

    def complete(self, fields: dict[str, Any]) -> Profile:
        """Return the profile of these fields with accuracies, and with the fitted retention of embed dims."""
        widths = [entry | {"embed_retention": self.embed_retention[entry["embed_dim"]]} for entry in fields["widths"]]
        accuracies = {
            "widths": widths,
            "provenance": fields["provenance"] | {"accuracy": self.provenance},
            "accuracy_model": self.fitted.model.model_dump(),
        }
        return Profile.model_validate(fields | accuracies)


class AccuracyMeasurement:
    """Trial plans of one model, kept in a file from which an interrupted measurement continues."""

    def __init__(
        self,
        draft: Profile,
        card: ModelCard,
        whole: VisionTransformer,
        calibration: Calibration,
        work: Path,
        options: TrialOptions,
    ) -> None:
        """Read the trial plans executed so far.

        Args:
            draft: The profile so far; its embed dims retain what they do right after recovery in closed form.
            card: Names the data, and the jitter of the training.
            whole: The whole model.
            calibration: Images on which errors are counted.
            work: A file that holds the trial plans until the profile is finished; it may exist already.
            options: Extent of the trial plans.

        Raises:
            InputError: If the file belongs to another measurement.
        """
        self.work, self.options = work, options
        self.record = _read_record(work, draft, options)
        self.shares = unit_shares(draft)
        self.rho = {w.embed_dim: np.array(w.embed_retention) for w in draft.widths}
        self.images, self.whole_errors = calibration.counts(len(draft.classes))
        self._begun = time.perf_counter()
        self._make_setting = partial(_setting, draft, card, whole, calibration, options)

    def measure(
        self,
        workers: Executor,
        on_trial: Callable[[int, int], None],
        on_copy: Callable[[int, int], None] = lambda done, total: None,
    ) -> MeasuredAccuracy:
        """Execute trial plans as long as the time allows, and fit the model to them.

        At least one round is executed.

        Args:
            workers: Executor of the trial plans of a round.
            on_trial: Called with the number of trial plans done and their expected number, before the first and after
                each.
            on_copy: Called with the number of copies of the training images that the whole model has seen, and of all.
        """
        if self._wants_more():
            setting = self._make_setting(on_copy)
            on_trial(len(self.record.trials), self._expected_trials())
            while self._wants_more():
                self._run_round(setting, workers, on_trial)
        on_trial(len(self.record.trials), len(self.record.trials))
        fitted = fit_accuracy_model(self._evidence(len(self.record.trials)))
        return MeasuredAccuracy(fitted, fitted.embed_retention(self.rho), self._provenance())

    def _wants_more(self) -> bool:
        num_done = len(self.record.trials)
        if num_done >= self.options.max_trials:
            return False
        # A round that was begun is finished.
        return num_done < ROUND_SIZE or num_done % ROUND_SIZE != 0 or self._time_left() > self._round_seconds()

    def _run_round(self, setting: TrialSetting, workers: Executor, on_trial: Callable[[int, int], None]) -> None:
        """Execute the rest of a round; of a round that was interrupted, the first trial plans are in the record."""
        done = self.record.trials
        first = len(done) // ROUND_SIZE * ROUND_SIZE
        designs = self._designs(range(first, min(first + ROUND_SIZE, self.options.max_trials)))[len(done) - first :]
        found: list[TrialPlan | None] = [None] * len(designs)
        begun, before = time.perf_counter(), self.record.seconds
        for i, trial in map_unordered(workers, run_trial, setting, [(devices,) for devices in designs], _RESUME_HINT):
            found[i] = trial
            # In their order, so that the record is the same whichever was done first.
            in_order = tuple(t for t in itertools.takewhile(lambda t: t is not None, found) if t is not None)
            seconds = round(before + time.perf_counter() - begun, 3)
            self.record = self.record.replace(trials=(*done, *in_order), seconds=seconds)
            write_document(self.work, self.record)
            num_done = len(done) + len(found) - found.count(None)
            on_trial(num_done, max(num_done, self._expected_trials()))

    def _designs(self, numbers: range) -> list[tuple[TrialDevice, ...]]:
        """Return the devices of a round's trial plans, by the fit to all rounds before it."""
        fitted = fit_accuracy_model(self._evidence(numbers.start))
        rho = {e: np.array(kept) for e, kept in fitted.embed_retention(self.rho).items()}

        def relative_loss(retention: FleetRetention) -> float:
            return mean_loss(fitted.model, retention) / (1 - fitted.model.whole_error)

        return [trial_design(number, rho, relative_loss, self.options.seed) for number in numbers]

    def _evidence(self, num_trials: int) -> Evidence:
        trials = self.record.trials[:num_trials]
        return Evidence(trials, self.shares, self.rho, self.images, self.whole_errors, self.options.epochs)

    def _round_seconds(self) -> float:
        """Return the mean time of the rounds so far [s]."""
        return self.record.seconds / max(1.0, len(self.record.trials) / ROUND_SIZE)

    def _time_left(self) -> float:
        return self.options.seconds - (time.perf_counter() - self._begun)

    def _expected_trials(self) -> int:
        if not self.record.trials:
            return self.options.max_trials
        rounds = max(0, int(self._time_left() / max(self._round_seconds(), 1e-3)))
        return min(self.options.max_trials, len(self.record.trials) + rounds * ROUND_SIZE)

    def _provenance(self) -> str:
        trials, epochs = len(self.record.trials), self.options.epochs
        how = f"retrained for {epochs:g} epochs" if epochs else "recovered in closed form"
        return f"{count_noun(trials, 'trial plan')} {how}; {int(self.images.sum())} calibration images"


def _setting(
    draft: Profile,
    card: ModelCard,
    whole: VisionTransformer,
    calibration: Calibration,
    options: TrialOptions,
    on_copy: Callable[[int, int], None],
) -> TrialSetting:
    """Return what all trial plans share: all training images, and the teacher's outputs for their copies."""
    samples, jitter = data.load(card, "train"), data.Jitter.of(card.training)
    learned = make_distillation_data(whole, samples, jitter, options.seed, copies_for(options.epochs), on_copy)
    training, validation = split_validation(learned, seed=options.seed)
    return TrialSetting(draft, whole, training, validation, calibration, options.epochs, options.seed)


def _read_record(work: Path, draft: Profile, options: TrialOptions) -> TrialRecord:
    """Return the trial plans in a file, or an empty record if there is none."""
    # Without measured times, which differ from run to run: no trial plan depends on them.
    content = draft.model_dump(mode="json", exclude={"latency", "provenance"})
    fresh = TrialRecord(draft_sha256=sha256_of_json(content), seed=options.seed, epochs=options.epochs)
    if not work.exists():
        return fresh
    record = read_document(work, TrialRecord)
    if record.replace(trials=(), seconds=0.0) != fresh:
        raise InputError(f"{work}: holds the trial plans of another measurement; delete it to begin again.")
    return record
