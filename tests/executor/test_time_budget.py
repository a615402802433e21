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
from planner.network.training import TrainFunction
from tests.helpers.small_run import SmallRun, contents, execute_run, make_small_run, stop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three small sub-models."""
    return make_small_run(tmp_path_factory.mktemp("run"))


def test_minutes_are_turned_into_epochs_once(run: SmallRun, tmp_path: Path) -> None:
    """The number of epochs is reported and stored, and the bundle equals one made with that many epochs."""
    budgets: list[int] = []
    with pytest.raises(RuntimeError, match="stopped"):
        execute_run(run, tmp_path / "minutes", minutes=0.03, on_budget=budgets.append, on_progress=stop)
    assert json.loads((tmp_path / "minutes" / "work" / "order.json").read_text())["epochs"] == budgets[0] >= 1
    execute_run(run, tmp_path / "minutes", minutes=0.03, on_budget=budgets.append)
    execute_run(run, tmp_path / "minutes", minutes=1000, on_budget=budgets.append)
    assert len(budgets) == 1
    execute_run(run, tmp_path / "epochs", epochs=budgets[0])
    assert contents(tmp_path / "minutes") == contents(tmp_path / "epochs")


def test_too_few_minutes_and_both_budgets_are_refused(run: SmallRun, tmp_path: Path) -> None:
    """The message says how long one epoch takes, and nothing is written."""
    with pytest.raises(InputError, match=r"`minutes` must be at least 0\.\d+, which one epoch takes, got 1e-05"):
        execute_run(run, tmp_path / "bundle", minutes=1e-5)
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

    def make_task(training: DistillationData, validation: DistillationData, epochs: int) -> RecoveryTask:
        return RecoveryTask(parts, whole, whole, training, validation, run.profile.fusion_hidden, epochs, 0)

    timed = time_budget.time_recipe(RECIPES[recipe], make_task, whole, samples, jitter, 0)
    assert all(map(torch.equal, before, (p for part in parts for p in part.sub_model.parameters())))
    bundle = execute_run(run, tmp_path, recipe=recipe, epochs=3)
    lines = [json.loads(line) for line in (bundle / "metrics.jsonl").read_text().splitlines()]
    ran = [(line["training"], line["epochs"]) for line in lines if line["epoch"] == 1]
    assert [time.epochs for call in timed.training_times(3) for time in call] == [epochs for _, epochs in ran]


def test_max_epochs_is_the_last_that_fits() -> None:
    """A copy takes 1 s, two parallel trainings 2 and 3 s an epoch, then one of 4 s; at most 8 copies."""

    def recipe(task: RecoveryTask, train: TrainFunction) -> Fusion:
        train([_training(task.epochs), _training(task.epochs)])
        train([_training(task.epochs)])
        return Fusion([1], hidden=1, num_classes=1)

    timed = time_budget.TimedRecipe(recipe, _task(), 1.0, [[2.0, 3.0], [4.0]], 8)
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
    with pytest.raises(InputError, match=r"must be at least 0\.2, which one epoch takes, got 0\.1"):
        timed.max_epochs(0.1, 1)


def _training(epochs: int) -> Any:
    return SimpleNamespace(schedule=SimpleNamespace(epochs=epochs))


def _task() -> RecoveryTask:
    none: Any = None
    return RecoveryTask((), none, none, none, none, 0, 1, 0)
