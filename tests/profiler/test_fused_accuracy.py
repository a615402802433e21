"""Rounds of trial plans: resumed after every interruption as if there had been none, and ended by their time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner.errors import InputError
from planner.network.data import Samples
from planner.profiler import fused_accuracy
from planner.profiler.accuracy_model import Evidence, FittedAccuracy, fit_accuracy_model
from planner.profiler.calibration import Calibration
from planner.profiler.fused_accuracy import AccuracyMeasurement, MeasuredAccuracy, TrialOptions, TrialRecord
from planner.profiler.trial_plans import relative_macs
from planner.schema import Profile, read_document
from planner.workers import Executor, InlineExecutor, ProcessExecutor
from tests.helpers.random_instances import random_profile
from tests.helpers.trials import made_trial

DRAFT = random_profile(1, num_classes=5, widths=(8, 4))
OPTIONS = TrialOptions(max_trials=10, epochs=10, max_relative_macs=6, seconds=1e9, seed=0)
NONE: Any = None


class StoppedError(Exception):
    """An interruption."""


FITS: dict[object, FittedAccuracy] = {}


def fit_once(evidence: Evidence) -> FittedAccuracy:
    """Fit the model, or return what was fitted to the same trial plans before."""
    key = tuple(evidence.trials), evidence.epochs
    if key not in FITS:
        FITS[key] = fit_accuracy_model(evidence)
    return FITS[key]


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute no trial plans, and fit nothing twice."""
    monkeypatch.setattr(fused_accuracy, "_setting", lambda *arguments: None)
    monkeypatch.setattr(fused_accuracy, "run_trial", made_trial)
    monkeypatch.setattr(fused_accuracy, "fit_accuracy_model", fit_once)


def calibration() -> Calibration:
    """Return twenty images of each class, one of which the whole model gets wrong."""
    labels = torch.arange(100) % 5
    return Calibration(Samples(torch.zeros(100, 1, 2, 2), labels), torch.arange(100) >= 5)


def measurement(work: Path, draft: Profile = DRAFT, **changes: Any) -> AccuracyMeasurement:
    """Return a measurement of the draft."""
    options = TrialOptions(**(vars(OPTIONS) | changes))
    return AccuracyMeasurement(draft, NONE, NONE, calibration(), work, options)


def stop_at(number: int) -> Callable[[int, int], None]:
    """Return a report that interrupts when so many trial plans are done."""

    def on_trial(done: int, total: int) -> None:
        if done == number:
            raise StoppedError

    return on_trial


def measured(work: Path, workers: Executor | None = None, **changes: Any) -> tuple[MeasuredAccuracy, TrialRecord]:
    """Measure to the end; return the result, and the record without its time."""
    result = measurement(work, **changes).measure(workers or InlineExecutor(), lambda done, total: None)
    return result, read_document(work, TrialRecord).replace(seconds=0.0)


def test_interrupted_at_every_trial_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial plan is executed once, and record and model are those of an unbroken measurement."""
    unbroken, record = measured(tmp_path / "unbroken.json")
    assert len(record.trials) == 10
    work, made = tmp_path / "broken.json", list[object]()

    def counted(setting: object, devices: Any) -> object:
        made.append(devices)
        return made_trial(setting, devices)

    monkeypatch.setattr(fused_accuracy, "run_trial", counted)
    for number in range(1, 10):
        with pytest.raises(StoppedError):
            measurement(work).measure(InlineExecutor(), stop_at(number))
        assert read_document(work, TrialRecord).num_done == number
    resumed, again = measured(work)
    assert again == record
    assert made == [trial.devices for trial in record.trials]
    assert resumed.fitted.model == unbroken.fitted.model
    assert resumed.embed_retention == unbroken.embed_retention
    # Once more, when all is done, executes nothing.
    assert measured(work)[1] == record
    assert len(made) == 10


def test_two_processes_make_the_same_record(tmp_path: Path) -> None:
    """Also when they were interrupted in the middle of a round."""
    _, record = measured(tmp_path / "one.json", max_trials=4)
    work = tmp_path / "two.json"
    with pytest.raises(StoppedError):
        measurement(work, max_trials=4).measure(ProcessExecutor(2), stop_at(2))
    begun = read_document(work, TrialRecord).under_way
    assert len(begun) == 2
    assert all(record.trials[number] == trial for number, trial in begun.items())
    assert measured(work, ProcessExecutor(2), max_trials=4)[1] == record


def test_no_trial_plan_is_lost_whichever_is_done_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were done out of their order are kept, and not executed again."""
    _, record = measured(tmp_path / "one.json")
    work, made = tmp_path / "two.json", list[object]()

    def last_first(workers: object, task: Any, shared: object, calls: Sequence[Any], hint: str) -> Iterator[Any]:
        for i in reversed(range(len(calls))):
            made.append(calls[i][0])
            yield i, task(shared, *calls[i])

    monkeypatch.setattr(fused_accuracy, "map_unordered", last_first)
    for number in (3, 6):
        with pytest.raises(StoppedError):
            measurement(work).measure(InlineExecutor(), stop_at(number))
    assert measured(work)[1] == record
    assert len(made) == 10
    assert made != [trial.devices for trial in record.trials]


def test_no_trial_plan_is_dearer_than_is_said(tmp_path: Path) -> None:
    """Unless its devices keep the least already."""
    bound, unbound = (
        {
            relative_macs(DRAFT, trial.devices)
            for trial in measured(tmp_path / f"{most}.json", max_relative_macs=most)[1].trials
            if any(device.share > 0.05 for device in trial.devices)
        }
        for most in (1.5, 6.0)
    )
    assert max(bound) <= 1.5 < max(unbound)


@pytest.mark.parametrize(
    ("seconds", "max_trials", "expected"),
    # A trial plan takes 10 s, a round of four 40 s. The first is always executed.
    [(0, 32, 4), (79, 32, 4), (81, 32, 8), (119, 32, 8), (1e9, 6, 6), (0, 3, 3), (0, 1, 1)],
)
def test_whole_rounds_as_long_as_the_time_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, max_trials: int, expected: int
) -> None:
    """Another round begins only if there is time for all of it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(fused_accuracy, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def timed(setting: object, devices: Any) -> object:
        clock.now += 10
        return made_trial(setting, devices)

    monkeypatch.setattr(fused_accuracy, "run_trial", timed)
    reports = list[tuple[int, int]]()
    made = measurement(tmp_path / "work.json", seconds=seconds, max_trials=max_trials)
    made.measure(InlineExecutor(), lambda *report: reports.append(report))
    assert len(made.record.trials) == expected
    assert made.record.seconds == 10 * expected
    assert [done for done, _ in reports] == [*range(expected + 1), expected]
    assert all(done <= total <= max_trials for done, total in reports)
    # What is expected is true from the first trial plan on: each takes as long as the one before.
    assert all(total == expected for done, total in reports if done)
    assert reports[-1] == (expected, expected)


def test_a_round_that_was_begun_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed without any time left, a measurement has the trial plans of an unbroken one."""
    work = tmp_path / "work.json"
    with pytest.raises(StoppedError):
        measurement(work, seconds=0).measure(InlineExecutor(), stop_at(2))
    assert len(measured(work, seconds=0)[1].trials) == 4


@pytest.mark.parametrize(
    ("draft", "changes"),
    [
        (DRAFT, {"seed": 1}),
        (DRAFT, {"epochs": 0}),
        (random_profile(2, num_classes=5, widths=(8, 4)), {}),
    ],
    ids=["seed", "epochs", "profile"],
)
def test_the_trial_plans_of_another_measurement_are_refused(
    tmp_path: Path, draft: Profile, changes: dict[str, int]
) -> None:
    """The file is left as it is."""
    work = tmp_path / "trials.json"
    measured(work)
    before = work.read_bytes()
    with pytest.raises(InputError) as caught:
        measurement(work, draft, **changes)
    expected = "holds the trial plans of another measurement; delete it to begin again."
    assert str(caught.value) == f"{work}: {expected}"
    assert work.read_bytes() == before


def test_times_of_this_machine_do_not_make_another_measurement(tmp_path: Path) -> None:
    """Latencies differ from run to run, and no trial plan depends on them; more time and trials go on with the same."""
    work = tmp_path / "trials.json"
    measured(work, max_trials=4)
    row = {"embed_dim": 8, "fixed_us": 1, "attention_us": 1, "head_us": 1, "mlp_us": 1, "channel_us": 1}
    timed = DRAFT.replace(latency={"here": [row]}, provenance={"counts": "by hand"})
    assert len(measurement(work, timed, max_trials=10, seconds=5).record.trials) == 4


def test_the_profile_is_completed(tmp_path: Path) -> None:
    """With the model, the fitted retention of widths, and what was done; nothing else changes."""
    result, record = measured(tmp_path / "trials.json", epochs=10)
    fields = DRAFT.model_dump(mode="json")
    profile = result.complete(fields | {"provenance": {"counts": "by hand"}})
    assert profile.accuracy_model == result.fitted.model
    assert profile.accuracy_model is not None
    assert len(profile.accuracy_model.scores) == len(record.trials)
    assert profile.accuracy_model.epochs == 10
    assert profile.provenance == {
        "counts": "by hand",
        "accuracy": "10 trial plans retrained for 10 epochs; 100 calibration images",
    }
    assert {w.embed_dim: list(w.embed_retention) for w in profile.widths} == result.embed_retention
    unchanged = {"accuracy_model", "provenance", "widths"}
    assert profile.model_dump(exclude=unchanged) == DRAFT.model_dump(exclude=unchanged)
    without = measured(tmp_path / "closed.json", epochs=0, max_trials=1)[0].provenance
    assert without == "1 trial plan recovered in closed form; 100 calibration images"
