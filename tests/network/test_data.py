"""The shipped model's data, folds, and jitter of images."""

import math
import sys

import numpy as np
import pytest
import torch

from planner.errors import InputError
from planner.network import data
from planner.network.checkpoint import load_card, load_model
from planner.network.data import Jitter, Samples
from planner.network.evaluation import accuracy
from planner.network.vit import VisionTransformer
from planner.schema import ModelCard
from tests.helpers.plain_vit import generator

# The shipped model and its data

Digits = tuple[ModelCard, VisionTransformer, Samples, Samples]


@pytest.fixture(scope="module")
def digits() -> Digits:
    """The shipped digits ViT, its training part and its whole test part."""
    pytest.importorskip("sklearn")
    card, model = load_model("digits-vit")
    return card, model, data.load(card, "train"), data.load_stored_test(card)


def test_the_shipped_model_is_as_accurate_as_its_card_says(digits: Digits) -> None:
    """The digits ViT is right on at least 97 % of the test part, and its card states the accuracies to four digits."""
    card, model, train, test = digits
    assert not model.training
    assert card.accuracy is not None
    assert round(accuracy(model, test), 4) == card.accuracy["test"] >= 0.97
    assert round(accuracy(model, train), 4) == card.accuracy["train"]


def test_the_split_is_a_partition(digits: Digits) -> None:
    """Train and test together are scikit-learn's 1,797 images, each exactly once."""
    from sklearn.datasets import load_digits

    card, _, train, test = digits
    assert len(train) + len(test) == 1797
    pre = card.preprocessing
    assert pre is not None
    both = torch.cat([train.tensor(), test.tensor()]).flatten(1) * pre.std[0] + pre.mean[0]
    got = np.column_stack([both / pre.scale, torch.cat([train.labels, test.labels])])
    source = load_digits()
    expected = np.column_stack([source.data, source.target])
    got, expected = (np.array(sorted(np.rint(rows).tolist())) for rows in (got, expected))
    np.testing.assert_array_equal(got, expected)


def test_the_split_is_stratified(digits: Digits) -> None:
    """Each class has the same share of its images in the test part, exact to one image."""
    card, _, train, test = digits
    in_test, in_train = (torch.bincount(part.labels, minlength=10).double() for part in (test, train))
    assert card.data is not None
    assert card.data.test_share is not None
    assert ((in_test - card.data.test_share * (in_test + in_train)).abs() <= 1).all()


def test_the_split_is_the_same_every_time(digits: Digits) -> None:
    """Loading a part again gives the same images in the same order."""
    card, _, train, test = digits
    for again, known in ((data.load(card, "train"), train), (data.load_stored_test(card), test)):
        assert torch.equal(again.tensor(), known.tensor())
        assert torch.equal(again.labels, known.labels)


def test_training_images_are_standardised(digits: Digits) -> None:
    """Preprocessed pixels of the training part have mean 0 and standard deviation 1."""
    images = digits[2].tensor()
    assert images.dtype == torch.float32
    assert images.shape[1:] == (1, 8, 8)
    assert abs(images.mean()) < 0.01
    assert abs(images.std() - 1) < 0.01


def test_folds_partition_the_samples(digits: Digits) -> None:
    """Each sample is held out in one of three folds, with a third of each class; another seed gives other folds."""
    labels = digits[2].labels
    numbered = Samples(torch.arange(len(labels)), labels)
    folds = [data.fold(numbered, i, 3, seed=0) for i in range(3)]
    assert sorted(torch.cat([hold_out.tensor() for _, hold_out in folds]).tolist()) == list(range(len(labels)))
    for training, hold_out in folds:
        assert sorted(torch.cat([training.tensor(), hold_out.tensor()]).tolist()) == list(range(len(labels)))
        assert torch.equal(hold_out.labels, labels[hold_out.tensor()])
        assert (torch.bincount(hold_out.labels) - torch.bincount(labels) / 3).abs().max() < 1
    assert torch.equal(data.fold(numbered, 1, 3, seed=0)[1].tensor(), folds[1][1].tensor())
    assert not torch.equal(data.fold(numbered, 1, 3, seed=1)[1].tensor(), folds[1][1].tensor())


def test_without_scikit_learn_the_data_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn, the message names the extra to install."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"needs scikit-learn.*vit-planner\[data\]"):
        data.load(load_card("digits-vit"), "test")


# Jitter


def test_no_jitter_is_the_identity() -> None:
    """Jitter with limits of zero leaves the images as they are, to 1e-6."""
    images = torch.rand(6, 2, 8, 8, generator=generator())
    assert (Jitter(0.0, 0.0)(images, generator()) - images).abs().max() <= 1e-6


def test_jitter_is_drawn_by_the_generator() -> None:
    """The same generator state draws the same jitter, and each image gets its own."""
    images = torch.rand(1, 1, 8, 8, generator=generator()).expand(3, -1, -1, -1)
    first = Jitter(1.0, 10.0)(images, generator(2))
    assert torch.equal(first, Jitter(1.0, 10.0)(images, generator(2)))
    assert not torch.allclose(first[0], first[1])


@pytest.mark.parametrize("vertical", [False, True])
def test_shifts_stay_within_their_limit(vertical: bool) -> None:
    """On a ramp that rises by 1 a pixel, a shift of up to 1.5 pixels changes the inner pixels by up to 1.5."""
    ramp = torch.arange(10.0).expand(10, 10)
    images = (ramp.T if vertical else ramp).expand(200, 1, 10, 10)
    change = (Jitter(1.5, 0.0)(images, generator()) - images)[:, 0, 2:-2, 2:-2]
    assert 1.2 < change.abs().max() <= 1.5 + 1e-4
    # One image is shifted as a whole, some one way and some the other.
    assert (change.amax((1, 2)) - change.amin((1, 2))).max() < 1e-4
    assert change.min() < -1.2
    assert change.max() > 1.2


def test_rotations_stay_within_their_limit() -> None:
    """On a ramp, a rotation by a small angle tilts by its sine: over 4 pixels, at most 4 sin(20 degrees)."""
    ramp = torch.arange(10.0).expand(200, 1, 10, 10)
    turned = Jitter(0.0, 20.0)(ramp, generator())[:, 0]
    tilt = (turned[:, 7, 5] - turned[:, 3, 5]).abs()
    assert 0.9 * 4 * math.sin(math.radians(20)) < tilt.max() <= 4 * math.sin(math.radians(20)) + 1e-4
