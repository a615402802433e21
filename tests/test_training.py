"""The training loop: resumed equals unbroken, and what it learns."""

import math

import pytest
import torch
from plain_vit import random_images
from safetensors.torch import load, save
from torch.nn import functional as F

from planner.errors import PlannerError
from planner.network.data import Samples
from planner.network.evaluate import accuracy
from planner.network.fusion import Fusion
from planner.network.training import Recipe, fit
from planner.network.vit import Shape, VisionTransformer, initialise

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 0, 1), hidden_dim=(5, 3, 0))
IMAGES = random_images(SHAPE, 20)
TARGETS = torch.arange(20) % 3
RECIPE = Recipe(epochs=4, batch_size=8)


def generator(seed=0):
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def without(state, name):
    """Return a state without a tensor."""
    return {key: tensor for key, tensor in state.items() if key != name}


class Interrupted(Exception):
    """Raised where a run is to die."""


def fresh(kind):
    """Return an untrained model, and its loss with random noise on the images."""
    if kind == "vit":
        model = VisionTransformer(SHAPE)
        initialise(model, generator(5))
        inputs = IMAGES
    else:
        model = Fusion([20, 12], hidden=6, num_classes=3)
        inputs = IMAGES.flatten(1)
        with torch.no_grad():
            for p in (*model.fc1.parameters(), *model.fc2.parameters()):
                p.normal_(generator=generator(5))
        model.standardise(inputs)

    def loss(batch, epoch_generator):
        noise = torch.randn(inputs[batch].shape, generator=epoch_generator)
        return F.cross_entropy(model(inputs[batch] + 0.1 * noise), TARGETS[batch])

    return model, loss


def numbers(model):
    """Return all of a model's numbers, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one, other):
    """Two states are equal bit for bit."""
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("kind", ["vit", "fusion"])
@pytest.mark.parametrize("died_after", [1, 2, 4])
def test_an_interrupted_training_goes_on_as_if_unbroken(tmp_path, kind, died_after):
    """A run that died after an epoch and was started again ends, bit for bit, where an unbroken one does."""
    unbroken, loss = fresh(kind)
    fit(unbroken, loss, 20, RECIPE, seed=3)

    epochs = iter(range(1, 9))

    def die():
        if next(epochs) == died_after:
            raise Interrupted

    broken, loss = fresh(kind)
    with pytest.raises(Interrupted):
        fit(broken, loss, 20, RECIPE, 3, tmp_path / "state", die)
    calls = []
    resumed, loss = fresh(kind)
    fit(resumed, loss, 20, RECIPE, 3, tmp_path / "state", lambda: calls.append(1))
    assert_same(numbers(resumed), numbers(unbroken))
    assert len(calls) == 4
    assert not resumed.training


def test_a_training_that_died_within_an_epoch_goes_on_from_the_last_whole_one(tmp_path):
    """Half an epoch is forgotten, and leaves no trace."""
    unbroken, loss = fresh("vit")
    fit(unbroken, loss, 20, RECIPE, seed=3)
    broken, loss = fresh("vit")
    steps = iter(range(100))

    def dying(batch, epoch_generator):
        # 20 samples in batches of 8 are 3 steps an epoch: step 7 is in the third.
        if next(steps) == 7:
            raise Interrupted
        return loss(batch, epoch_generator)

    with pytest.raises(Interrupted):
        fit(broken, dying, 20, RECIPE, 3, tmp_path / "state")
    resumed, loss = fresh("vit")
    fit(resumed, loss, 20, RECIPE, 3, tmp_path / "state")
    assert_same(numbers(resumed), numbers(unbroken))


def test_training_is_the_seeds():
    """The same seed ends at the same weights, another seed at others."""
    states = []
    for seed in (3, 3, 4):
        model, loss = fresh("vit")
        fit(model, loss, 20, RECIPE, seed)
        states.append(numbers(model))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_training_learns():
    """A small network learns labels that are the sign of the image's sum."""
    shape = Shape(4, 2, 1, 2, 8, 4, (2,), (16,))
    model = VisionTransformer(shape)
    initialise(model, generator())
    images = random_images(shape, 64)
    labels = (images.sum((1, 2, 3)) > 0).long()

    def loss(batch, _):
        return F.cross_entropy(model(images[batch]), labels[batch])

    fit(model, loss, 64, Recipe(epochs=40, batch_size=16, learning_rate=5e-3), seed=0)
    assert accuracy(model, Samples(images, labels)) > 0.9


def test_frozen_numbers_stay_as_they_are():
    """The fusion's mean and spread are not trained and do not decay."""
    model, loss = fresh("fusion")
    before = numbers(model)
    fit(model, loss, 20, RECIPE, seed=3)
    assert torch.equal(model.mean, before["mean"])
    assert torch.equal(model.std, before["std"])
    assert not torch.equal(model.fc1.weight, before["fc1.weight"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(value):
    """The message says in which epoch, and at which learning rate."""
    model, loss = fresh("vit")
    steps = iter(range(100))

    def bursting(batch, epoch_generator):
        # Three steps an epoch: step 4 is in the second epoch, behind one step of warm-up out of 12.
        return loss(batch, epoch_generator) * (value if next(steps) == 4 else 1.0)

    rate = RECIPE.rate(4, 12)
    with pytest.raises(PlannerError, match=rf"became {value} in epoch 2 at learning rate {rate:.2g}: lower it\."):
        fit(model, bursting, 20, RECIPE, seed=3)


def rewritten(content, change, metadata):
    """Return a training state with its tensors changed and other metadata."""
    return save(change(load(content)), metadata)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"not a training state",
        lambda content: rewritten(content, lambda s: without(s, "model.head.bias"), {"epoch": "1"}),
        lambda content: rewritten(content, lambda s: without(s, "exp_avg.head.bias"), {"epoch": "1"}),
        lambda content: rewritten(content, lambda s: s | {"model.head.bias": torch.ones(7)}, {"epoch": "1"}),
        lambda content: rewritten(content, lambda s: s, None),
        lambda content: rewritten(content, lambda s: s, {"other": "1"}),
        lambda content: rewritten(content, lambda s: s, {"epoch": "one"}),
    ],
    ids=[
        "empty",
        "truncated",
        "text",
        "no weights",
        "no moments",
        "another network's",
        "no metadata",
        "no epoch",
        "epoch not a number",
    ],
)
def test_a_damaged_training_state_is_refused(tmp_path, damage):
    """A state that cannot be resumed is named, with what to do about it."""
    path = tmp_path / "state"
    model, loss = fresh("vit")
    fit(model, loss, 20, Recipe(epochs=1, batch_size=8), 3, path)
    path.write_bytes(damage(path.read_bytes()))
    model, loss = fresh("vit")
    with pytest.raises(PlannerError, match=r"state: not a training state .*delete it to begin again"):
        fit(model, loss, 20, RECIPE, 3, path)


def test_the_learning_rate_warms_up_and_comes_down():
    """Over 20 steps with a tenth of warm-up: half, whole, then a cosine from the whole down towards zero."""
    recipe = Recipe(epochs=1, learning_rate=0.1, warmup_share=0.1)
    rates = [recipe.rate(step, 20) for step in range(20)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[11] == pytest.approx(0.05)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.001
