"""The training loop: resumed equals unbroken, here or elsewhere; the best epoch remains; when to stop."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from planner.errors import PlannerError
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import distillation_data
from planner.network.evaluation import accuracy
from planner.network.losses import LabelLoss
from planner.network.training import Schedule, TrainingTask, adopt, history, is_finished, run_epoch, train, train_here
from planner.network.vit import Shape, VisionTransformer, initialise
from tests.helpers.plain_vit import random_images
from tests.helpers.trainings import (
    IMAGES,
    REAL,
    SCHEDULE,
    TARGETS,
    DiedError,
    Scripted,
    assert_same,
    fresh,
    generator,
    numbers,
    real,
    without_seconds,
)

# Resumed is unbroken


@pytest.mark.parametrize("kind", ["vit", "fusion"])
@pytest.mark.parametrize(("held", "died_after"), [(0, 1), (0, 2), (0, 4), (6, 1), (6, 3)])
def test_an_interrupted_training_goes_on_as_if_unbroken(tmp_path, kind, held, died_after):
    """A run that died after an epoch and was started again ends, bit for bit, where an unbroken one does."""
    unbroken, said = fresh(kind, held), []
    train(unbroken, on_epoch=said.append)

    def die(epoch):
        if epoch.epoch == died_after:
            raise DiedError

    with pytest.raises(DiedError):
        train(fresh(kind, held), tmp_path / "state", die)
    resumed, said_again = fresh(kind, held), []
    train(resumed, tmp_path / "state", said_again.append)
    assert_same(numbers(resumed.module), numbers(unbroken.module))
    assert without_seconds(said_again) == without_seconds(said)
    assert [epoch.epoch for epoch in said] == [1, 2, 3, 4][: len(said)]
    assert not resumed.module.training


def test_a_training_that_died_within_an_epoch_goes_on_from_the_last_whole_one(tmp_path):
    """Half an epoch is forgotten, and leaves no trace."""
    unbroken = fresh()
    train(unbroken)
    steps = iter(range(100))

    class Dying(LabelLoss):
        def forward(self, module, batch, generator):
            # 20 samples in batches of 8 are 3 steps an epoch: step 7 is in the third.
            if next(steps) == 7:
                raise DiedError
            return super().forward(module, batch, generator)

    with pytest.raises(DiedError):
        train(replace(fresh(), objective=Dying()), tmp_path / "state")
    resumed = fresh()
    train(resumed, tmp_path / "state")
    assert_same(numbers(resumed.module), numbers(unbroken.module))


@pytest.mark.parametrize("kind", REAL)
def test_epochs_run_one_by_one_elsewhere_give_the_same_bits(kind):
    """A chain of epochs, each of a pickled copy, ends where a training in memory does, and changes nothing given."""
    here, said = real(kind), []
    train(here, on_epoch=said.append)
    there, state = real(kind), None
    before = numbers(there.module), numbers(there.objective)
    while state is None or not is_finished(state):
        state = run_epoch(pickle.loads(pickle.dumps(there)), state)
        state_again = run_epoch(there, None)
    assert_same(numbers(there.module), before[0])
    assert_same(numbers(there.objective), before[1])
    assert history(state_again)[0].loss == history(state)[0].loss
    adopt(there, state)
    assert_same(numbers(there.module), numbers(here.module))
    assert without_seconds(history(state)) == without_seconds(said)
    assert not there.module.training
    with pytest.raises(PlannerError, match=r"must have epochs left to run, got a state that is finished"):
        run_epoch(there, state)


def test_training_is_the_seeds():
    """The same seed ends at the same weights, another seed at others."""
    states = []
    for seed in (3, 3, 4):
        training = fresh(seed=seed)
        train_here([training])
        states.append(numbers(training.module))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_trainings_here_come_one_after_the_other():
    """Each is trained as by itself, and its epochs are told under its name."""
    alone = fresh("vit")
    train(alone)
    both, told = [fresh("vit"), fresh("fusion")], []
    train_here(both, told.append)
    assert_same(numbers(both[0].module), numbers(alone.module))
    assert [epoch.training for epoch in told] == ["vit"] * 4 + ["fusion"] * 4


def test_training_learns():
    """A small network learns labels that are the sign of the image's sum."""
    shape = Shape(4, 2, 1, 2, 8, 4, (2,), (16,))
    model = VisionTransformer(shape)
    initialise(model, generator())
    images = random_images(shape, 64)
    samples = Samples(images, (images.sum((1, 2, 3)) > 0).long())
    known = distillation_data(model, samples, Jitter(0.0, 0.0), seed=0)
    train(TrainingTask("sign", model, LabelLoss(), known, known.take(torch.arange(0)), Schedule(40, 16, 5e-3), seed=0))
    assert accuracy(model, samples) > 0.9


def test_what_is_frozen_stays_as_it_is():
    """The fusion's mean and spread are not trained and do not decay, and a teacher learns nothing."""
    training = fresh("fusion")
    before = numbers(training.module)
    train(training)
    assert torch.equal(training.module.mean, before["mean"])
    assert torch.equal(training.module.std, before["std"])
    assert not torch.equal(training.module.fc1.weight, before["fc1.weight"])
    training = real("relations")
    before = numbers(training.objective)
    train(training)
    assert_same(numbers(training.objective), before)


# When to stop


@pytest.mark.parametrize(
    ("held_losses", "lowest_so_far"),
    [
        # Two epochs without a lower one: as low is not lower.
        ([3.0, 2.0, 2.5, 2.0, 1.0, 1.0, 1.0, 1.0], [1, 2]),
        ([3.0, 2.0, 2.5, 1.9, 2.0, 1.8, 1.9, 1.9], [1, 2, 4, 6]),
        ([3.0, 3.1, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4], [1, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_the_best_epoch_remains(held_losses, lowest_so_far):
    """Of eight epochs, two without a lower held-out loss end the training; the weights are those of the lowest."""
    training, weights, told = fresh(held=6, schedule=Schedule(8, 8)), [], []
    training = replace(training, objective=Scripted(held_losses))

    def look(epoch):
        told.append(epoch)
        weights.append(numbers(training.module))

    train(training, on_epoch=look)
    assert len(told) == min(8, lowest_so_far[-1] + 2)
    assert [epoch.held_loss for epoch in told] == pytest.approx(held_losses[: len(told)])
    assert [epoch.epoch for epoch in told if epoch.best] == lowest_so_far
    assert_same(numbers(training.module), weights[lowest_so_far[-1] - 1])


def test_the_held_loss_is_the_mean_over_held_samples_as_they_are_left():
    """Of six held samples in batches of four: the plain mean over all, after the epoch, each time of the same noise."""
    training = fresh(held=6, schedule=Schedule(2, 4))
    told, expected = [], []

    def look(epoch):
        told.append(epoch)
        draw = generator(training.seed)
        noise = torch.cat([0.1 * torch.randn(n, 2, 4, 4, generator=draw) for n in (4, 2)])
        with torch.no_grad():
            logits = training.module(training.held.inputs + noise).double().numpy()
        p = torch.tensor(logits).softmax(1)[range(6), training.held.labels]
        expected.append(-p.log().mean().item())

    train(training, on_epoch=look)
    assert [epoch.held_loss for epoch in told] == pytest.approx(expected, rel=1e-5)


def test_a_training_of_samples_alone_runs_all_epochs():
    """Where nothing is held out, no loss is measured and the last epoch is the best."""
    told = []
    train(fresh(schedule=Schedule(9, 8)), on_epoch=told.append)
    assert [(epoch.epoch, epoch.epochs, epoch.held_loss, epoch.best) for epoch in told] == [
        (n, 9, None, True) for n in range(1, 10)
    ]


def test_patience_is_a_quarter_of_the_epochs():
    """A quarter, rounded up, and at least two."""
    assert [Schedule(epochs).patience for epochs in (1, 8, 9, 20, 21)] == [2, 2, 3, 5, 6]


def test_the_loss_of_an_epoch_is_the_mean_of_its_batches():
    """With a learning rate of nothing, the mean over batches is what the untrained network gives for each."""
    training, told = fresh(schedule=Schedule(1, 8, learning_rate=0.0)), []
    model = copy.deepcopy(training.module)
    train(training, on_epoch=told.append)
    draw, losses = generator(3 * 1_000_003), []
    for indices in torch.randperm(20, generator=draw).split(8):
        noise = 0.1 * torch.randn(len(indices), 2, 4, 4, generator=draw)
        losses.append(F.cross_entropy(model(IMAGES[indices] + noise), TARGETS[indices]).item())
    assert told[0].loss == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert told[0].learning_rate == 0.0
    assert told[0].seconds > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(value):
    """The message says of what training, in which epoch, and at which learning rate."""
    steps = iter(range(100))

    class Bursting(LabelLoss):
        def forward(self, module, batch, generator):
            # Three steps an epoch: step 4 is in the second epoch, behind one step of warm-up out of 12.
            return super().forward(module, batch, generator) * (value if next(steps) == 4 else 1.0)

    rate = SCHEDULE.rate(4, 12)
    wanted = rf"training 'vit': the loss became {value} in epoch 2 at learning rate {rate:.2g}; look for extreme"
    with pytest.raises(PlannerError, match=wanted):
        train(replace(fresh(), objective=Bursting()))


def test_the_learning_rate_warms_up_and_comes_down():
    """Over 20 steps with a tenth of warm-up: half, whole, then a cosine from the whole down towards zero."""
    schedule = Schedule(epochs=1, learning_rate=0.1, warmup_share=0.1)
    rates = [schedule.rate(step, 20) for step in range(20)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[11] == pytest.approx(0.05)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.001
