"""The training loop: a resumed training equals an unbroken one, the best epoch remains, and early stopping."""

import copy
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.errors import PlannerError
from planner.network import training_run
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import Batch, make_distillation_data
from planner.network.evaluation import accuracy
from planner.network.fusion import Fusion
from planner.network.losses import CrossEntropyLoss
from planner.network.training import (
    Epoch,
    Schedule,
    TrainingTask,
    history,
    is_finished,
    load_best_weights,
    run_epoch,
    train,
    train_inline,
)
from planner.network.vit import Shape, VisionTransformer, initialise
from tests.helpers.plain_vit import State, generator, random_images
from tests.helpers.trainings import (
    IMAGES,
    LOSS_NAMES,
    SCHEDULE,
    TARGETS,
    DiedError,
    Noisy,
    Scripted,
    assert_same,
    make_task,
    numbers,
    task_with_loss,
    without_seconds,
)

# Resumed is unbroken


@pytest.mark.parametrize("network", ["vit", "fusion"])
@pytest.mark.parametrize(("num_validation", "died_after"), [(0, 1), (0, 2), (0, 4), (6, 1), (6, 3)])
def test_an_interrupted_training_goes_on_as_if_unbroken(
    tmp_path: Path, network: str, num_validation: int, died_after: int
) -> None:
    """A run that died after an epoch and was started again ends, bit for bit, like an unbroken one."""
    unbroken = make_task(network, num_validation)
    epochs: list[Epoch] = []
    train(unbroken, on_epoch=epochs.append)

    def die(epoch: Epoch) -> None:
        if epoch.epoch == died_after:
            raise DiedError

    with pytest.raises(DiedError):
        train(make_task(network, num_validation), tmp_path / "state", die)
    resumed = make_task(network, num_validation)
    epochs_again: list[Epoch] = []
    train(resumed, tmp_path / "state", epochs_again.append)
    assert_same(numbers(resumed.module), numbers(unbroken.module))
    assert without_seconds(epochs_again) == without_seconds(epochs)
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2, 3, 4][: len(epochs)]
    assert not resumed.module.training


def test_a_training_that_died_within_an_epoch_goes_on_from_the_last_whole_one(tmp_path: Path) -> None:
    """An unfinished epoch is repeated and leaves no trace."""
    unbroken = make_task()
    train(unbroken)
    steps = iter(range(100))

    class Dying(CrossEntropyLoss):
        def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            # 20 samples in batches of 8 are 3 steps an epoch: step 7 is in the third.
            if next(steps) == 7:
                raise DiedError
            return super().forward(module, batch, generator)

    with pytest.raises(DiedError):
        train(replace(make_task(), loss=Dying()), tmp_path / "state")
    resumed = make_task()
    train(resumed, tmp_path / "state")
    assert_same(numbers(resumed.module), numbers(unbroken.module))


@pytest.mark.parametrize("loss_name", LOSS_NAMES)
def test_epochs_run_one_by_one_elsewhere_give_the_same_bits(loss_name: str) -> None:
    """Epochs run one by one on pickled copies end like a training in memory, and change nothing they are given."""
    here = task_with_loss(loss_name)
    epochs: list[Epoch] = []
    train(here, on_epoch=epochs.append)
    there, state = task_with_loss(loss_name), None
    before = numbers(there.module), numbers(there.loss)
    while state is None or not is_finished(state):
        state = run_epoch(pickle.loads(pickle.dumps(there)), state)
        state_again = run_epoch(there, None)
    assert_same(numbers(there.module), before[0])
    assert_same(numbers(there.loss), before[1])
    assert history(state_again)[0].loss == history(state)[0].loss
    load_best_weights(there, state)
    assert_same(numbers(there.module), numbers(here.module))
    assert without_seconds(history(state)) == without_seconds(epochs)
    assert not there.module.training
    with pytest.raises(PlannerError, match=r"must have epochs left to run, got a state that is finished"):
        run_epoch(there, state)


class Exact(Noisy):
    """Inputs without noise."""

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Return inputs as they are, without a teacher."""
        no_teacher = torch.empty(len(indices), 0)
        return Batch(self.inputs[indices], self.labels[indices], no_teacher, no_teacher)


def test_a_large_network_works_on_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are those of whole batches, though no more than three samples of a batch of eight are held at a time."""
    sizes: list[int] = []

    class Counting(CrossEntropyLoss):
        def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            if module.training:
                sizes.append(len(batch.labels))
            return super().forward(module, batch, generator)

    def losses() -> list[float | None]:
        epochs: list[Epoch] = []
        task = make_task()
        assert isinstance(task.data, Noisy)
        train(replace(task, data=Exact(task.data.inputs, task.data.labels), loss=Counting()), on_epoch=epochs.append)
        return [epoch.loss for epoch in epochs[1:]]

    expected = losses()
    assert max(sizes) == 8
    sizes.clear()
    monkeypatch.setattr(training_run, "_LARGE_PARAMETERS", 1)
    monkeypatch.setattr(training_run, "_SAMPLES_AT_A_TIME", 3)
    assert losses() == pytest.approx(expected, rel=1e-4)
    assert sizes[:7] == [3, 3, 2, 3, 3, 2, 3]


def test_training_depends_on_the_seed() -> None:
    """The same seed ends at the same weights, another seed at others."""
    states = []
    for seed in (3, 3, 4):
        training = make_task(seed=seed)
        train_inline([training])
        states.append(numbers(training.module))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_inline_trainings_come_one_after_the_other() -> None:
    """Each training gives what it gives alone, and its epochs are reported under its name."""
    alone = make_task("vit")
    train(alone)
    both = [make_task("vit"), make_task("fusion")]
    epochs: list[Epoch] = []
    train_inline(both, epochs.append)
    assert_same(numbers(both[0].module), numbers(alone.module))
    assert [epoch.training for epoch in epochs] == ["vit"] * 5 + ["fusion"] * 5


def test_training_learns() -> None:
    """A small network learns to label images by the sign of their sum."""
    shape = Shape(4, 2, 1, 2, 8, 4, (2,), (16,))
    model = VisionTransformer(shape)
    initialise(model, generator())
    images = random_images(shape, 64)
    samples = Samples(images, (images.sum((1, 2, 3)) > 0).long())
    known = make_distillation_data(model, samples, Jitter(0.0, 0.0), seed=0)
    train(
        TrainingTask(
            "sign", model, CrossEntropyLoss(), known, known.take(torch.arange(0)), Schedule(40, 16, 5e-3), seed=0
        )
    )
    assert accuracy(model, samples) > 0.9


def test_what_is_frozen_stays_as_it_is() -> None:
    """The fusion's mean and standard deviation stay fixed, and so does a teacher."""
    training = make_task("fusion")
    fusion = training.module
    assert isinstance(fusion, Fusion)
    before = numbers(fusion)
    train(training)
    assert torch.equal(fusion.mean, before["mean"])
    assert torch.equal(fusion.std, before["std"])
    assert not torch.equal(fusion.fc1.weight, before["fc1.weight"])
    training = task_with_loss("relations")
    before = numbers(training.loss)
    train(training)
    assert_same(numbers(training.loss), before)


# When to stop


@pytest.mark.parametrize(
    ("validation_losses", "last", "lowest_so_far"),
    [
        # Two epochs without a lower one: as low is not lower.
        ([4.0, 3.0, 2.0, 2.5, 2.0, 1.0, 1.0, 1.0, 1.0], 4, [0, 1, 2]),
        ([4.0, 3.0, 2.0, 2.5, 1.9, 2.0, 1.8, 1.9, 1.9], 8, [0, 1, 2, 4, 6]),
        ([4.0, 3.0, 3.1, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4], 8, [0, 1, 3, 4, 5, 6, 7, 8]),
        # A training that only harms leaves the start.
        ([1.0, 2.0, 2.0, 2.5, 0.5, 0.5, 0.5, 0.5, 0.5], 3, [0]),
        # It may lose at first what it makes good later: the patience is for the epochs among themselves.
        ([1.0, 3.0, 2.0, 1.5, 0.9, 1.0, 0.8, 0.9, 0.9], 8, [0, 4, 6]),
    ],
)
def test_the_best_epoch_remains(validation_losses: list[float], last: int, lowest_so_far: list[int]) -> None:
    """Two epochs without a lower validation loss end the training; the weights are those of the best epoch."""
    training = make_task(num_validation=6, schedule=Schedule(8, 8))
    weights: list[State] = []
    epochs: list[Epoch] = []
    training = replace(training, loss=Scripted(validation_losses))

    def look(epoch: Epoch) -> None:
        epochs.append(epoch)
        weights.append(numbers(training.module))

    train(training, on_epoch=look)
    assert len(epochs) == last + 1
    assert [epoch.held_loss for epoch in epochs] == pytest.approx(validation_losses[: len(epochs)])
    assert [epoch.epoch for epoch in epochs if epoch.best] == lowest_so_far
    assert_same(numbers(training.module), weights[lowest_so_far[-1]])


def test_the_validation_loss_is_the_mean_over_validation_samples() -> None:
    """The validation loss is the plain mean over all samples after the epoch, each time with the same noise."""
    training = make_task(num_validation=6, schedule=Schedule(2, 4))
    validation = training.validation
    assert isinstance(validation, Noisy)
    epochs: list[Epoch] = []
    expected: list[float] = []

    def look(epoch: Epoch) -> None:
        epochs.append(epoch)
        draw = generator(training.seed)
        noise = torch.cat([0.1 * torch.randn(n, 2, 4, 4, generator=draw) for n in (4, 2)])
        with torch.no_grad():
            logits = training.module(validation.inputs + noise).double().numpy()
        p = torch.tensor(logits).softmax(1)[range(6), validation.labels]
        expected.append(-p.log().mean().item())

    train(training, on_epoch=look)
    assert [epoch.held_loss for epoch in epochs] == pytest.approx(expected, rel=1e-5)


def test_a_training_without_validation_runs_all_epochs() -> None:
    """Without validation samples no loss is measured and the last epoch is the best."""
    epochs: list[Epoch] = []
    train(make_task(schedule=Schedule(9, 8)), on_epoch=epochs.append)
    assert [(epoch.epoch, epoch.epochs, epoch.held_loss, epoch.best) for epoch in epochs] == [
        (n, 9, None, True) for n in range(10)
    ]


def test_patience_is_a_quarter_of_the_epochs() -> None:
    """The patience is a quarter of the epochs, rounded up, and at least two."""
    assert [Schedule(epochs).patience for epochs in (1, 8, 9, 20, 21)] == [2, 2, 3, 5, 6]


def test_the_loss_of_an_epoch_is_the_mean_of_its_batches() -> None:
    """At a learning rate of zero, the loss is the untrained network's mean over batches."""
    training = make_task(schedule=Schedule(1, 8, learning_rate=0.0))
    epochs: list[Epoch] = []
    model = copy.deepcopy(training.module)
    train(training, on_epoch=epochs.append)
    draw, losses = generator(3 * 1_000_003), []
    for indices in torch.randperm(20, generator=draw).split(8):
        noise = 0.1 * torch.randn(len(indices), 2, 4, 4, generator=draw)
        losses.append(F.cross_entropy(model(IMAGES[indices] + noise), TARGETS[indices]).item())
    assert [epoch.loss for epoch in epochs] == [None, pytest.approx(sum(losses) / 3, rel=1e-6)]
    assert epochs[1].learning_rate == 0.0
    assert epochs[1].seconds > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(value: float) -> None:
    """The message names the training, the epoch and the learning rate."""
    steps = iter(range(100))

    class Bursting(CrossEntropyLoss):
        def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            # Three steps an epoch: step 4 is in the second epoch, behind one step of warm-up out of 12.
            return super().forward(module, batch, generator) * (value if next(steps) == 4 else 1.0)

    rate = SCHEDULE.rate(4, 12)
    wanted = rf"training 'vit': the loss became {value} in epoch 2 at learning rate {rate:.2g}; look for extreme"
    with pytest.raises(PlannerError, match=wanted):
        train(replace(make_task(), loss=Bursting()))


@pytest.mark.parametrize("epochs", [0.0, 0.4, 2.5])
def test_a_budget_may_end_within_an_epoch(tmp_path: Path, epochs: float) -> None:
    """Three steps are an epoch: so many of them are taken, rounded up, and a stop between changes nothing."""
    steps: list[int] = []

    class Counting(CrossEntropyLoss):
        def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            steps.append(len(batch.labels))
            return super().forward(module, batch, generator)

    unbroken = replace(make_task(schedule=Schedule(epochs, 8)), loss=Counting())
    train(unbroken)
    assert len(steps) == math.ceil(3 * epochs)
    state = None
    while state is None or not is_finished(state):
        state = run_epoch(make_task(schedule=Schedule(epochs, 8)), state)
    resumed = make_task(schedule=Schedule(epochs, 8))
    load_best_weights(resumed, state)
    assert_same(numbers(resumed.module), numbers(unbroken.module))
