"""How many epochs fit into some minutes, and how a trial knows."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from planner.errors import InputError
from planner.executor import time_budget
from planner.executor.execute import cut_parts
from planner.network import data
from planner.network.checkpoint import load_model
from planner.network.recipes import RECIPES, RecoveryTask
from tests.helpers.small_order import Ordered, carry_out, contents, small_order, stop


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Ordered:
    """Three small sub-models."""
    return small_order(tmp_path_factory.mktemp("order"))


def test_minutes_are_turned_into_epochs_once(order: Ordered, tmp_path: Path) -> None:
    """What fits is said and stored; a run that goes on keeps the number, and the bundle is that of --epochs."""
    said: list[int] = []
    with pytest.raises(RuntimeError, match="stopped"):
        carry_out(order, tmp_path / "minutes", minutes=0.03, on_budget=said.append, on_progress=stop)
    assert json.loads((tmp_path / "minutes" / "work" / "order.json").read_text())["epochs"] == said[0] >= 1
    carry_out(order, tmp_path / "minutes", minutes=0.03, on_budget=said.append)
    carry_out(order, tmp_path / "minutes", minutes=1000, on_budget=said.append)
    assert len(said) == 1
    carry_out(order, tmp_path / "epochs", epochs=said[0])
    assert contents(tmp_path / "minutes") == contents(tmp_path / "epochs")


def test_too_few_minutes_and_both_budgets_are_refused(order: Ordered, tmp_path: Path) -> None:
    """How long one epoch takes is said; nothing is written."""
    with pytest.raises(InputError, match=r"--minutes must be at least 0\.\d+, which one epoch takes, got 1e-05"):
        carry_out(order, tmp_path / "bundle", minutes=1e-5)
    with pytest.raises(InputError, match="--epochs and --minutes both set the budget"):
        carry_out(order, tmp_path / "bundle", minutes=1, epochs=1)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_trial_counts_what_a_run_trains(order: Ordered, tmp_path: Path, recipe: str) -> None:
    """Tried on images that are few already, a recipe's epochs are those of the run; sub-models stay as they are."""
    card, whole = load_model(order.card)
    parts = cut_parts(whole, order.profile, order.plan)
    before = [p.clone() for part in parts for p in part.sub_model.parameters()]
    samples, jitter = data.load(card, "train"), data.Jitter.of(card.training)
    trial = time_budget.time_recipe(RECIPES[recipe], parts, whole, samples, jitter, order.profile.fusion_hidden, 0)
    assert all(map(torch.equal, before, (p for part in parts for p in part.sub_model.parameters())))
    bundle = carry_out(order, tmp_path, recipe=recipe, epochs=3)
    lines = [json.loads(line) for line in (bundle / "metrics.jsonl").read_text().splitlines()]
    ran = [(line["training"], line["epochs"]) for line in lines if line["epoch"] == 1]
    assert [effort.epochs for call in trial.efforts(3) for effort in call] == [epochs for _, epochs in ran]


def test_most_epochs_is_the_last_that_fits() -> None:
    """By pencil: a copy takes 1 s, two trainings side by side 2 and 3 s an epoch, then one of 4 s; at most 8 copies."""

    def recipe(job, train):
        train([_training(job.epochs), _training(job.epochs)])
        train([_training(job.epochs)])

    trial = time_budget.TimedRecipe(recipe, _job(), 1.0, [[2.0, 3.0], [4.0]], 8)
    # One after the other (1 + 2 + 3 + 4) n; two at a time (1 + 3 + 4) n; past 8 epochs, no more copies.
    assert [trial.seconds(n, 1) for n in (1, 8, 9)] == [10, 80, 89]
    assert [trial.seconds(n, 2) for n in (1, 8, 9)] == [8, 64, 71]
    for minutes, width, epochs in ((10 / 60, 1, 1), (19.9 / 60, 1, 1), (20 / 60, 1, 2), (89.1 / 60, 1, 9), (1.2, 2, 9)):
        assert trial.most_epochs(minutes, width) == epochs
    with pytest.raises(InputError, match=r"must be at least 0\.2, which one epoch takes, got 0\.1"):
        trial.most_epochs(0.1, 1)


def _training(epochs: int) -> object:
    return SimpleNamespace(schedule=SimpleNamespace(epochs=epochs))


def _job() -> object:
    return RecoveryTask((), None, None, None, 0, 1, 0)
