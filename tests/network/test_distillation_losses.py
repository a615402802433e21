"""Distillation losses and the fusion, against numpy and plain arithmetic."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from planner.arrays import Bools, Floats
from planner.network.distillation_losses import (
    distillation_loss,
    log_own_and_other,
    own_and_other_labels,
    soft_target_loss,
)
from planner.network.fusion import Fusion
from tests.helpers.plain_vit import generator

# Losses


LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, -2.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0.0, 0.0, 2.0], [-1.0, 2.0, 0.0, 0.5], [4.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 3])
OWN = torch.tensor([False, True, False, True])


def own_and_other(logits: Floats, own: Bools) -> Floats:
    """Return probabilities of the own classes in their order, and the sum of all others', in numpy."""
    p = softmax(logits)
    return np.column_stack([p[:, own], p[:, ~own].sum(axis=1)])


def test_other_is_the_sum_of_the_foreign_classes() -> None:
    """The last column is the log probability of all foreign classes together; each row is a distribution."""
    got = log_own_and_other(LOGITS, OWN)
    assert got.shape == (3, 3)
    np.testing.assert_allclose(got, np.log(own_and_other(LOGITS.numpy(), OWN.numpy())), rtol=1e-12)
    np.testing.assert_allclose(got.exp().sum(1), 1, rtol=1e-12)


def test_with_all_classes_there_is_no_other() -> None:
    """A sub-model for every class has as many columns as classes, and its labels are the labels."""
    everything = torch.ones(4, dtype=torch.bool)
    assert torch.equal(log_own_and_other(LOGITS, everything), LOGITS.log_softmax(1))
    assert torch.equal(own_and_other_labels(LABELS, everything), LABELS)


def test_extreme_logits_stay_finite() -> None:
    """Foreign classes with a probability of zero still have a finite logarithm."""
    assert torch.isfinite(log_own_and_other(torch.tensor([[0.0, 1e4, -1e4, 1e4]]), OWN)).all()


def test_labels_follow_the_columns() -> None:
    """Own classes 1 and 3 are columns 0 and 1, classes 0 and 2 the last column."""
    assert own_and_other_labels(torch.tensor([0, 1, 2, 3]), OWN).tolist() == [2, 0, 2, 1]


def softmax(logits: Floats) -> Floats:
    """Return probabilities, in numpy."""
    p: Floats = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_loss_is_the_scaled_divergence(temperature: float) -> None:
    """The soft loss is T^2 KL(teacher || student) over all classes, both softened by T, averaged over images."""
    p, q = softmax(TEACHER.numpy() / temperature), softmax(LOGITS.numpy() / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert soft_target_loss(LOGITS, TEACHER, temperature).item() == pytest.approx(expected, rel=1e-10)


def test_a_model_has_no_soft_loss_with_itself() -> None:
    """The soft loss of a student whose logits are the teacher's is zero."""
    assert soft_target_loss(LOGITS, LOGITS, 2.0).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("own", [OWN, torch.tensor([True] * 4), torch.tensor([True, False, False, False])])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_loss_is_half_hard_half_soft(own: Tensor, temperature: float) -> None:
    """The loss is the mean of cross-entropy over own classes and other, and of the soft loss over all classes."""
    mask = own.numpy()
    columns = [*np.flatnonzero(mask), *([-1] if not mask.all() else [])]
    rows = [columns.index(label) if label in columns else len(columns) - 1 for label in LABELS.tolist()]
    hard = -np.log(own_and_other(LOGITS.numpy(), mask)[range(3), rows]).mean()
    p, q = softmax(TEACHER.numpy() / temperature), softmax(LOGITS.numpy() / temperature)
    soft = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    got = distillation_loss(LOGITS, TEACHER, LABELS, own, temperature)
    assert got.item() == pytest.approx(0.5 * hard + 0.5 * soft, rel=1e-10)


def test_a_model_learns_nothing_from_itself() -> None:
    """With the student as its own teacher, half the cross-entropy is left."""
    hard = F.nll_loss(log_own_and_other(LOGITS, OWN), own_and_other_labels(LABELS, OWN))
    assert distillation_loss(LOGITS, LOGITS, LABELS, OWN, 2.0).item() == pytest.approx(0.5 * hard.item(), rel=1e-12)


# Fusion


class FittedFusion(NamedTuple):
    """A fusion, and the features that standardise it."""

    fusion: Fusion
    features: Tensor


@pytest.fixture
def fitted() -> FittedFusion:
    """A fusion of two devices with 3 and 2 features, standardised by 50 random images, and those features."""
    fusion = Fusion([3, 2], hidden=4, num_classes=2)
    features = torch.randn(50, 5, generator=generator()) * 3 + 1
    with torch.no_grad():
        for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
            p.normal_(generator=generator(1))
    fusion.standardise(features)
    return FittedFusion(fusion, features)


def test_fusion_is_two_layers_on_standardised_features(fitted: FittedFusion) -> None:
    """The logits are fc2(gelu(fc1((x - mean) / spread))), with mean and spread of the training images."""
    fusion, features = fitted
    x = (features - features.mean(0)) / features.std(0)
    hidden = x @ fusion.fc1.weight.T + fusion.fc1.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(fusion(features), hidden @ fusion.fc2.weight.T + fusion.fc2.bias)


def test_a_missing_device_counts_as_its_mean_features(fitted: FittedFusion) -> None:
    """The two features of missing device 1 count as their mean over the training images, whatever their values."""
    fusion, features = fitted
    averaged = torch.cat([features[:, :3], features[:, 3:].mean(0).expand(50, 2)], dim=1)
    present = torch.tensor([1.0, 0.0]).expand(50, 2)
    torch.testing.assert_close(fusion(features, present), fusion(averaged))
    torch.testing.assert_close(fusion(features, torch.ones(50, 2)), fusion(features))


def test_devices_may_be_missing_image_by_image(fitted: FittedFusion) -> None:
    """Devices may be present for some images of a batch and missing for others."""
    fusion, features = fitted
    present = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    together = fusion(features[:3], present)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], fusion(features[i : i + 1], present[i : i + 1]))


def test_a_feature_that_never_changes_does_no_harm(fitted: FittedFusion) -> None:
    """A constant feature gives finite logits, and a shift of it by a hundredth changes them little."""
    fusion, features = fitted
    features[:, 0] = 7.0
    fusion.standardise(features)
    assert torch.isfinite(fusion(features)).all()
    before = fusion(features)
    features[:, 0] += 0.01
    assert (fusion(features) - before).abs().max() < 0.1
