"""The start of a training: its preparation, the learning rate that does not undo it, and the warm-up."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planner.network.distillation_data import Batch
from planner.network.losses import CrossEntropyLoss
from planner.network.training import Epoch, Schedule, train
from tests.helpers.plain_vit import generator
from tests.helpers.trainings import assert_same, make_task, numbers


class Halving:
    """A preparation that halves all weights."""

    num_images = max_images = 1

    def __call__(self, module: nn.Module) -> None:
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(0.5)


def test_the_start_is_prepared_once(tmp_path: Path) -> None:
    """Validation images are looked at before and after; a run that died goes on from the prepared module."""
    training = replace(make_task(num_validation=6, schedule=Schedule(0)), preparation=Halving())
    as_cut, halved = copy.deepcopy(training.module), copy.deepcopy(training.module)
    Halving()(halved)
    epochs: list[Epoch] = []
    train(training, tmp_path / "state", epochs.append)
    assert_same(numbers(training.module), numbers(halved))
    again = replace(make_task(num_validation=6, schedule=Schedule(0)), preparation=Halving())
    train(again, tmp_path / "state")
    assert_same(numbers(again.module), numbers(halved))
    validation, draw = training.validation, generator(training.seed)
    batch = validation.batch(torch.arange(6), draw)
    found = [float((model(batch.inputs).argmax(1) == batch.labels).float().mean()) for model in (as_cut, halved)]
    assert [(e.epoch, e.accuracy_as_cut, e.held_accuracy) for e in epochs] == [(0, *map(pytest.approx, found))]


@pytest.mark.parametrize(("harmful_above", "expected"), [(1.0, 9e-3), (4e-3, 3e-3), (5e-4, 9e-3 / 27)])
def test_a_harmful_learning_rate_is_lowered(harmful_above: float, expected: float) -> None:
    """Of 9e-3, 3e-3 and so on, the first rate is taken at which a trial does not double the loss; it is no step."""

    class Harmful(CrossEntropyLoss):
        def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            loss = super().forward(module, batch, generator)
            moved = (next(module.parameters()) - first).abs().max().item()
            # A step of Adam is as long as the learning rate; trials are of three steps, the last at the full rate.
            return loss if module.training or moved <= 2.1 * harmful_above else 2 * loss

    schedule = Schedule(1, 8, learning_rate=9e-3, weight_decay=0.0, rate_search=True)
    training = replace(make_task(num_validation=6, schedule=schedule), loss=Harmful())
    first = next(training.module.parameters()).detach().clone()
    epochs: list[Epoch] = []
    train(training, on_epoch=epochs.append)
    assert epochs[0].learning_rate == pytest.approx(expected)
    plain = make_task(num_validation=6, schedule=replace(schedule, learning_rate=expected, rate_search=False))
    epochs_of_plain: list[Epoch] = []
    train(plain, on_epoch=epochs_of_plain.append)
    assert epochs[1].loss == pytest.approx(epochs_of_plain[1].loss, rel=1e-6)


def test_the_learning_rate_warms_up_and_comes_down() -> None:
    """Over 20 steps with a warm-up of 2, the rate rises linearly and then falls by a cosine towards zero."""
    schedule = Schedule(epochs=1, learning_rate=0.1, warmup_share=0.1)
    rates = [schedule.rate(step, 20) for step in range(20)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[11] == pytest.approx(0.05)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.001
