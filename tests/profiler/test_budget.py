"""Time budgets: images and epochs that fit, given numbers as they are, and the same again from the file."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from planner.errors import InputError
from planner.network.checkpoint import load_model
from planner.network.vit import VisionTransformer
from planner.profiler import budget, stopwatch
from planner.profiler.budget import ProfileBudget, read_budget
from planner.profiler.options import ProfileOptions
from planner.profiler.stopwatch import Stopwatch
from planner.schema import ModelCard

CARD, WHOLE = load_model("digits-vit")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Times of importance and of training, for one image [s]."""
    times = SimpleNamespace(importance=0.01, training=0.001)
    monkeypatch.setattr(budget, "_importance_seconds", lambda *arguments: times.importance)
    monkeypatch.setattr(budget, "_training_seconds", lambda *arguments: times.training)
    return times


def read(tmp_path: Path, num_workers: int = 1, **options: Any) -> ProfileBudget:
    """Return the budget of the digits ViT."""
    return read_budget(tmp_path / "work" / "budget.json", CARD, WHOLE, ProfileOptions(**options), num_workers)


@pytest.mark.parametrize(
    ("minutes", "seconds", "expected"),
    # A quarter of the time on ten classes: 60 x 20 x 0.25 / 0.1 / 10 = 300, at most 200; in two minutes 30; at least 4.
    [(20, 0.1, 200), (2, 0.1, 30), (4, 0.1, 60), (1, 10, 4), (1, 1e-9, 200)],
)
def test_images_fit_into_a_quarter_of_the_time(
    tmp_path: Path, clock: SimpleNamespace, minutes: float, seconds: float, expected: int
) -> None:
    """Within their limits."""
    clock.importance = seconds
    assert read(tmp_path, minutes=minutes).images_per_class == expected


@pytest.mark.parametrize(
    ("minutes", "seconds", "num_workers", "expected"),
    # Ten epochs of 1,257 images by 1.5 whole models: 18.855 s at a millisecond each, 16 times 301.7 s.
    # Half of 10.06 minutes is 301.8 s.
    [(10.06, 1e-3, 1, 10), (10.05, 1e-3, 1, 0), (5.03, 1e-3, 2, 10), (5.02, 1e-3, 2, 0), (20, 1.0, 1, 0)],
)
def test_trial_plans_are_retrained_where_enough_fit(
    tmp_path: Path, clock: SimpleNamespace, minutes: float, seconds: float, num_workers: int, expected: float
) -> None:
    """As `execute` retrains by default, or not at all; more workers do more."""
    clock.training = seconds
    assert read(tmp_path, num_workers, minutes=minutes).epochs == expected


@pytest.mark.parametrize(
    ("minutes", "epochs", "num_workers", "expected"),
    # A step takes 0.1 s, a pass a third of it. Of 1,257 images, reconstructing three boards takes the whole model 3,771
    # passes; a board of the whole model's size takes two for its reconstruction and one for its features: 3,771, too,
    # and 12,570 steps in ten epochs. Eight trial plans of two such boards take 3,016.8 s, half of 100.56 minutes.
    [
        (100.56, 0, 1, 2.0),
        (50.28, 0, 2, 2.0),
        (134.08, 0, 1, 3.0),
        (5, 0, 1, 1.0),
        (300, 0, 1, 6.0),
        (402.24, 10, 1, 1.0),
        (770.96, 10, 1, 2.0),
    ],
)
def test_trial_plans_are_small_enough_for_some_of_them(
    tmp_path: Path, clock: SimpleNamespace, minutes: float, epochs: float, num_workers: int, expected: float
) -> None:
    """So many whole models that eight fit into half of the time; never less than one, nor more than six."""
    clock.training = 0.1
    found = read(tmp_path, num_workers, minutes=minutes, epochs=epochs)
    assert found.max_relative_macs == pytest.approx(expected, rel=1e-3)


def test_given_numbers_are_not_changed(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Importance is not timed for them, and no limit binds them."""
    clock.importance = None
    found = read(tmp_path, minutes=1, images_per_class=777, epochs=0.5)
    assert (found.images_per_class, found.epochs) == (777, 0.5)
    assert read(tmp_path / "none", minutes=1, images_per_class=2, epochs=0).epochs == 0


def test_a_budget_is_kept(tmp_path: Path, clock: SimpleNamespace) -> None:
    """However fast the machine is the next time; another given number of images or epochs is refused."""
    first = read(tmp_path, minutes=1)
    clock.importance, clock.training = 1e-6, 1e-9
    assert read(tmp_path, minutes=1) == first
    assert read(tmp_path, minutes=1, images_per_class=first.images_per_class, epochs=first.epochs) == first
    file = tmp_path / "work" / "budget.json"
    before = file.read_bytes()
    for other in ({"minutes": 1, "images_per_class": 5}, {"minutes": 1, "epochs": 3}):
        with pytest.raises(InputError) as caught:
            read(tmp_path, **other)
        expected = "holds the budget of another measurement; delete its folder to begin again."
        assert str(caught.value) == f"{file}: {expected}"
    assert file.read_bytes() == before


def test_other_minutes_are_for_what_is_left(tmp_path: Path, clock: SimpleNamespace) -> None:
    """More of them go on with the same images, and are kept in their turn."""
    first = read(tmp_path, minutes=1)
    later = read(tmp_path, minutes=90)
    assert later == first.replace(minutes=90)
    assert ProfileBudget.model_validate_json((tmp_path / "work" / "budget.json").read_text()) == later


def test_the_budget_of_another_model_is_refused(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Weights tell models apart."""
    read(tmp_path)
    card, other = load_model("digits-vit")
    next(other.parameters()).data += 1
    with pytest.raises(InputError, match="another measurement"):
        read_budget(tmp_path / "work" / "budget.json", card, other, ProfileOptions(), 1)


def test_trial_plans_get_what_is_left_of_the_time() -> None:
    """[s], with the options' number and seed."""
    found = ProfileBudget(weights="", minutes=20, images_per_class=4, epochs=10, max_relative_macs=2.5)
    expected = {"max_trials": 7, "epochs": 10, "max_relative_macs": 2.5, "seconds": 750, "seed": 3}
    options = ProfileOptions(max_trials=7, seed=3)
    assert dataclasses.asdict(found.trial_options(options, seconds_taken=450)) == expected


def test_time_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process adds to what the first one saved, now and then."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: clock.now))
    file = tmp_path / "work" / "time.json"
    first = Stopwatch(file)
    clock.now = 107.0
    first.save_if_due()
    clock.now = 108.0
    first.save_if_due()
    assert first.seconds() == 8
    clock.now = 1000.0
    second = Stopwatch(file)
    clock.now = 1005.0
    assert second.seconds() == 7 + 5


def test_real_times_are_measured_and_the_model_is_left_alone(tmp_path: Path) -> None:
    """Limits hold on any machine; no parameter is changed, wants a gradient, or has one."""
    whole: VisionTransformer = WHOLE
    card: ModelCard = CARD
    before = [p.clone() for p in whole.parameters()]
    found = read_budget(tmp_path / "budget.json", card, whole, ProfileOptions(), 2)
    assert 4 <= found.images_per_class <= 200
    assert found.epochs in (0, 10)
    for p, was in zip(whole.parameters(), before, strict=True):
        assert (p == was).all()
        assert not p.requires_grad
        assert p.grad is None
