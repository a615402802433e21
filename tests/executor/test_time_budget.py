"""Epochs that fit into a time budget, measured by timing a recipe."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner.errors import InputError
from planner.executor import time_budget
from planner.executor.execute import cut_parts
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.distillation_data import DistillationData
from planner.network.fusion import Fusion
from planner.network.recipes import RECIPES, RecoveryTask
from planner.network.training import TrainFunction, TrainingTask, history, run_epoch
from tests.helpers.small_run import SmallRun, contents, execute_run, make_small_run, stop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three small sub-models."""
    return make_small_run(tmp_path_factory.mktemp("run"))


def test_minutes_are_turned_into_epochs_once(run: SmallRun, tmp_path: Path) -> None:
    """The number of epochs is reported and stored, and the bundle equals one made with that many epochs."""
    budgets: list[float] = []
    with pytest.raises(RuntimeError, match="stopped"):
        execute_run(run, tmp_path / "minutes", minutes=0.03, on_budget=budgets.append, on_progress=stop)
    assert json.loads((tmp_path / "minutes" / "work" / "order.json").read_text())["epochs"] == budgets[0] >= 0
    execute_run(run, tmp_path / "minutes", minutes=0.03, on_budget=budgets.append)
    execute_run(run, tmp_path / "minutes", minutes=1000, on_budget=budgets.append)
    assert len(budgets) == 1
    execute_run(run, tmp_path / "epochs", epochs=budgets[0])
    assert contents(tmp_path / "minutes") == contents(tmp_path / "epochs")


def test_too_few_minutes_for_a_training_leave_least_squares(run: SmallRun, tmp_path: Path) -> None:
    """There is a bundle in any case: the one of no epochs, where nothing but the fusion is trained."""
    budgets: list[float] = []
    bundle = execute_run(run, tmp_path / "minutes", minutes=1e-5, on_budget=budgets.append)
    assert budgets == [0]
    assert contents(bundle) == contents(execute_run(run, tmp_path / "none", epochs=0))
    lines = [json.loads(line) for line in (bundle / "metrics.jsonl").read_text().splitlines()]
    assert {line["training"] for line in lines if line["epoch"]} == {"fusion"}


def test_without_epochs_none_is_timed(run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the budget is known to be none, sub-models are reconstructed once for the timing; else they learn, too."""
    seen: list[tuple[str, int]] = []
    original = run_epoch

    def counted(task: TrainingTask, state: bytes | None, device: str) -> bytes:
        seen.append((task.name, len(history(state)) if state else 0))
        return original(task, state, device)

    monkeypatch.setattr(time_budget, "run_epoch", counted)
    execute_run(run, tmp_path / "none", epochs=0)
    assert seen == [(name, 0) for name in "abc"] + [("fusion", epoch) for epoch in range(3)]
    seen.clear()
    execute_run(run, tmp_path / "some", epochs=1)
    assert seen == [(name, epoch) for name in (*"abc", "fusion", "together") for epoch in range(3)]


@pytest.mark.parametrize("name", ["epochs", "minutes"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_budget_is_a_finite_number(run: SmallRun, tmp_path: Path, name: str, value: float) -> None:
    """Neither negative, nor infinite, nor no number; nothing is written."""
    with pytest.raises(InputError, match=rf"`{name}` must be a finite number, at least 0, got {value}\."):
        execute_run(run, tmp_path / "bundle", **{name: value})
    assert not (tmp_path / "bundle").exists()


def test_both_budgets_are_refused(run: SmallRun, tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(InputError, match="`epochs` and `minutes` both set the budget"):
        execute_run(run, tmp_path / "bundle", minutes=1, epochs=1)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_timed_recipe_counts_what_a_run_trains(run: SmallRun, tmp_path: Path, recipe: str) -> None:
    """Timed on images that are few already, a recipe's epochs are those of the run; sub-models stay as they are."""
    card, whole = load_model(run.card)
    parts = cut_parts(whole, run.profile, run.plan)
    before = [p.clone() for part in parts for p in part.sub_model.parameters()]
    samples, jitter = data.load(card, "train"), data.Jitter.of(card.training)

    def make_task(training: DistillationData, validation: DistillationData, epochs: float) -> RecoveryTask:
        return RecoveryTask(parts, whole, whole, training, validation, run.profile.fusion_hidden, epochs, 0)

    timed = time_budget.time_recipe(RECIPES[recipe], make_task, whole, samples, jitter, 0)
    assert all(map(torch.equal, before, (p for part in parts for p in part.sub_model.parameters())))
    bundle = execute_run(run, tmp_path, recipe=recipe, epochs=3)
    lines = [json.loads(line) for line in (bundle / "metrics.jsonl").read_text().splitlines()]
    ran = [(line["training"], line["epochs"]) for line in lines if line["epoch"] == 1]
    assert [time.epochs for call in timed.training_times(3) for time in call] == [epochs for _, epochs in ran]


def test_max_epochs_is_the_last_that_fits() -> None:
    """A copy takes 1 s, two parallel trainings 2 and 3 s an epoch, then one of 4 s; at most 8 copies."""
    timed = timed_recipe(0.0)
    # One after the other (1 + 2 + 3 + 4) n; two at a time (1 + 3 + 4) n; past 8 epochs, no more copies.
    assert [timed.seconds(n, 1) for n in (1, 8, 9)] == [10, 80, 89]
    assert [timed.seconds(n, 2) for n in (1, 8, 9)] == [8, 64, 71]
    for minutes, num_workers, epochs in (
        (10 / 60, 1, 1),
        (19.9 / 60, 1, 1),
        (20 / 60, 1, 2),
        (89.1 / 60, 1, 9),
        (1.2, 2, 9),
    ):
        assert timed.max_epochs(minutes, num_workers) == epochs


def test_without_a_jitter_there_is_one_copy() -> None:
    """The second of a copy is spent once, whatever the epochs: 1 + (2 + 3 + 4) n."""
    assert [timed_recipe(0.0, has_copies=False).seconds(n, 1) for n in (0, 1, 8)] == [1, 10, 73]


def test_a_budget_below_an_epoch_is_a_part_of_one() -> None:
    """With starts of 5 s each, 16 s of copy and starts are needed, and 9 s for each epoch of training."""
    timed = timed_recipe(5.0)
    assert [timed.seconds(n, 1) for n in (0, 0.5, 1)] == [16, 20.5, 25]
    # 4.6 s of 9 are 0.51 epochs, in steps of 0.05.
    for seconds, epochs in ((25, 1), (20.6, 0.5), (16.1, 0), (3, 0)):
        assert timed.max_epochs(seconds / 60, 1) == epochs


def timed_recipe(start: float, has_copies: bool = True) -> time_budget.TimedRecipe:
    """Return a recipe of two trainings side by side and one after them, with a time of their starts [s]."""

    def recipe(task: RecoveryTask, train: TrainFunction) -> Fusion:
        train([_training(task.epochs), _training(task.epochs)])
        train([_training(task.epochs)])
        return Fusion([1], hidden=1, num_classes=1)

    times = [[time_budget.EpochTimes(start, 2.0), time_budget.EpochTimes(start, 3.0)]]
    times.append([time_budget.EpochTimes(start, 4.0)])
    return time_budget.TimedRecipe(recipe, _task(), 1.0, times, has_copies)


def _training(epochs: float) -> Any:
    return SimpleNamespace(schedule=SimpleNamespace(epochs=epochs))


def _task() -> RecoveryTask:
    none: Any = None
    return RecoveryTask((), none, none, none, none, 0, 1, 0)
