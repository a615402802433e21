"""Fused accuracy of a profile: trial plans are executed, recorded one by one, and a model is fitted to them.

Trial plans are executed in rounds, those of a round side by side. The next round's are designed by the fit to all
rounds before it, so the same trial plans come out whatever the number of workers, and however often the work is
interrupted.
"""

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
from planner.profiler.trial_plans import TrialPlan, TrialSetting, relative_macs, run_trial
from planner.profiler.work_files import read_work_file
from planner.rules.accuracy import mean_loss
from planner.rules.retention import FleetRetention, unit_shares
from planner.schema import Frozen, ModelCard, Profile, write_document
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
    max_relative_macs: float
    # Of the rounds that are finished, in their order; and of the round under way, by number.
    trials: tuple[TrialPlan, ...] = Field(default=())
    under_way: dict[int, TrialPlan] = Field(default_factory=dict)
    # Time that the trial plans took, with as many side by side as there were workers.
    seconds: float = 0.0

    @property
    def num_done(self) -> int:
        """Number of trial plans that were executed."""
        return len(self.trials) + len(self.under_way)


@dataclass(frozen=True)
class TrialOptions:
    """Extent of the trial plans: at most so many, each retrained so long, within so much time from now on."""

    max_trials: int
    epochs: float
    # Most MACs of a trial plan's sub-models together, as a multiple of the whole model's.
    max_relative_macs: float
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
        self.draft, self.work, self.options = draft, work, options
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
            on_trial(self.record.num_done, self._expected_trials())
            while self._wants_more():
                self._run_round(setting, workers, on_trial)
        on_trial(len(self.record.trials), len(self.record.trials))
        fitted = fit_accuracy_model(self._evidence(len(self.record.trials)))
        return MeasuredAccuracy(fitted, fitted.embed_retention(self.rho), self._provenance())

    def _wants_more(self) -> bool:
        if len(self.record.trials) >= self.options.max_trials:
            return False
        # A round that was begun is finished, and at least one is executed.
        return not self.record.trials or bool(self.record.under_way) or self._time_left() > self._round_seconds()

    def _run_round(self, setting: TrialSetting, workers: Executor, on_trial: Callable[[int, int], None]) -> None:
        """Execute a round, or what is left of one that was interrupted."""
        first = len(self.record.trials)
        numbers = range(first, min(first + ROUND_SIZE, self.options.max_trials))
        missing = [number for number in numbers if number not in self.record.under_way]
        designs = self._designs(numbers)
        calls = [(designs[number - first],) for number in missing]
        begun, before = time.perf_counter(), self.record.seconds
        for i, trial in map_unordered(workers, run_trial, setting, calls, _RESUME_HINT):
            found = {**self.record.under_way, missing[i]: trial}
            seconds = round(before + time.perf_counter() - begun, 3)
            if len(found) == len(numbers):
                in_order = tuple(found[number] for number in numbers)
                self.record = self.record.replace(
                    trials=(*self.record.trials, *in_order), under_way={}, seconds=seconds
                )
            else:
                self.record = self.record.replace(under_way=found, seconds=seconds)
            write_document(self.work, self.record)
            on_trial(self.record.num_done, max(self.record.num_done, self._expected_trials()))

    def _designs(self, numbers: range) -> list[tuple[TrialDevice, ...]]:
        """Return the devices of a round's trial plans, by the fit to all rounds before it."""
        fitted = fit_accuracy_model(self._evidence(numbers.start))
        rho = {e: np.array(kept) for e, kept in fitted.embed_retention(self.rho).items()}

        def relative_loss(retention: FleetRetention) -> float:
            return mean_loss(fitted.model, retention) / (1 - fitted.model.whole_error)

        def is_affordable(devices: tuple[TrialDevice, ...]) -> bool:
            most = self.options.max_relative_macs
            return len(devices) <= most or relative_macs(self.draft, devices) <= most

        return [trial_design(number, rho, relative_loss, is_affordable, self.options.seed) for number in numbers]

    def _evidence(self, num_trials: int) -> Evidence:
        trials = self.record.trials[:num_trials]
        return Evidence(trials, self.shares, self.rho, self.images, self.whole_errors, self.options.epochs)

    def _round_seconds(self) -> float:
        """Return the mean time of a round so far [s]."""
        return self.record.seconds * ROUND_SIZE / max(1, self.record.num_done)

    def _time_left(self) -> float:
        return self.options.seconds - (time.perf_counter() - self._begun)

    def _expected_trials(self) -> int:
        if not self.record.num_done:
            return self.options.max_trials
        # A round that was begun is finished.
        begun = len(self.record.trials) + (ROUND_SIZE if self.record.under_way else 0)
        of_round = max(self._round_seconds(), 1e-3)
        left = self._time_left() - of_round * (begun - self.record.num_done) / ROUND_SIZE
        return min(self.options.max_trials, begun + max(0, int(left / of_round)) * ROUND_SIZE)

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
    fresh = TrialRecord(
        draft_sha256=sha256_of_json(content),
        seed=options.seed,
        epochs=options.epochs,
        max_relative_macs=options.max_relative_macs,
    )
    if not work.exists():
        return fresh
    record = read_work_file(work, TrialRecord)
    if record.replace(trials=(), under_way={}, seconds=0.0) != fresh:
        raise InputError(f"{work}: holds the trial plans of another measurement; delete it to begin again.")
    return record
