"""Losses and the fusion, against numpy and plain arithmetic."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from planner.network.distillation_losses import distillation_loss, log_own_and_other, own_and_other_labels, soft_loss
from planner.network.fusion import Fusion


def generator(seed=0):
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


# Losses


LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, -2.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0.0, 0.0, 2.0], [-1.0, 2.0, 0.0, 0.5], [4.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 3])
OWN = torch.tensor([False, True, False, True])


def own_and_other(logits, own):
    """Return probabilities of the own classes in their order, and the sum of all others', in numpy."""
    p = softmax(logits)
    return np.column_stack([p[:, own], p[:, ~own].sum(axis=1)])


def test_other_is_the_sum_of_the_foreign_classes():
    """The last column is the log of what the foreign classes have together; each row is a distribution."""
    got = log_own_and_other(LOGITS, OWN)
    assert got.shape == (3, 3)
    np.testing.assert_allclose(got, np.log(own_and_other(LOGITS.numpy(), OWN.numpy())), rtol=1e-12)
    np.testing.assert_allclose(got.exp().sum(1), 1, rtol=1e-12)


def test_with_all_classes_there_is_no_other():
    """A sub-model for every class has as many columns as classes, and its labels are the labels."""
    everything = torch.ones(4, dtype=torch.bool)
    assert torch.equal(log_own_and_other(LOGITS, everything), LOGITS.log_softmax(1))
    assert torch.equal(own_and_other_labels(LABELS, everything), LABELS)


def test_extreme_logits_stay_finite():
    """Foreign classes of no probability at all have a finite log all the same."""
    assert torch.isfinite(log_own_and_other(torch.tensor([[0.0, 1e4, -1e4, 1e4]]), OWN)).all()


def test_labels_follow_the_columns():
    """Own classes 1 and 3 are columns 0 and 1, classes 0 and 2 the last column."""
    assert own_and_other_labels(torch.tensor([0, 1, 2, 3]), OWN).tolist() == [2, 0, 2, 1]


def softmax(logits):
    """Return probabilities, in numpy."""
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_loss_is_the_scaled_divergence(temperature):
    """The soft loss is T^2 KL(teacher || student) over all classes, both softened by T, averaged over images."""
    p, q = softmax(TEACHER.numpy() / temperature), softmax(LOGITS.numpy() / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert soft_loss(LOGITS, TEACHER, temperature).item() == pytest.approx(expected, rel=1e-10)


def test_a_model_has_no_soft_loss_with_itself():
    """A student that answers as its teacher does has nothing left to learn from it."""
    assert soft_loss(LOGITS, LOGITS, 2.0).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("own", [OWN, torch.tensor([True] * 4), torch.tensor([True, False, False, False])])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_loss_is_half_hard_half_soft(own, temperature):
    """The loss is the mean of cross-entropy over own classes and other, and of the soft loss over all classes."""
    mask = own.numpy()
    columns = [*np.flatnonzero(mask), *([-1] if not mask.all() else [])]
    rows = [columns.index(label) if label in columns else len(columns) - 1 for label in LABELS.tolist()]
    hard = -np.log(own_and_other(LOGITS.numpy(), mask)[range(3), rows]).mean()
    p, q = softmax(TEACHER.numpy() / temperature), softmax(LOGITS.numpy() / temperature)
    soft = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    got = distillation_loss(LOGITS, TEACHER, LABELS, own, temperature)
    assert got.item() == pytest.approx(0.5 * hard + 0.5 * soft, rel=1e-10)


def test_a_model_learns_nothing_from_itself():
    """With the student as its own teacher, what is left is half the cross-entropy."""
    hard = F.nll_loss(log_own_and_other(LOGITS, OWN), own_and_other_labels(LABELS, OWN))
    assert distillation_loss(LOGITS, LOGITS, LABELS, OWN, 2.0).item() == pytest.approx(0.5 * hard.item(), rel=1e-12)


# Fusion


@pytest.fixture
def fusion():
    """A fusion of two devices with 3 and 2 features, standardised by 50 random images, and those features."""
    fusion = Fusion([3, 2], hidden=4, num_classes=2)
    features = torch.randn(50, 5, generator=generator()) * 3 + 1
    with torch.no_grad():
        for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
            p.normal_(generator=generator(1))
    fusion.standardise(features)
    return fusion, features


def test_fusion_is_two_layers_on_standardised_features(fusion):
    """The logits are fc2(gelu(fc1((x - mean) / spread))), with mean and spread of the training images."""
    fusion, features = fusion
    x = (features - features.mean(0)) / features.std(0)
    hidden = x @ fusion.fc1.weight.T + fusion.fc1.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(fusion(features), hidden @ fusion.fc2.weight.T + fusion.fc2.bias)


def test_a_missing_device_counts_as_its_average_answer(fusion):
    """Without device 1, its two features count as their mean over the training images, whatever stands there."""
    fusion, features = fusion
    averaged = torch.cat([features[:, :3], features[:, 3:].mean(0).expand(50, 2)], dim=1)
    present = torch.tensor([1.0, 0.0]).expand(50, 2)
    torch.testing.assert_close(fusion(features, present), fusion(averaged))
    torch.testing.assert_close(fusion(features, torch.ones(50, 2)), fusion(features))


def test_devices_may_be_missing_image_by_image(fusion):
    """Who is present is said for each image on its own."""
    fusion, features = fusion
    present = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    together = fusion(features[:3], present)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], fusion(features[i : i + 1], present[i : i + 1]))


def test_a_feature_that_never_changes_does_no_harm(fusion):
    """A feature without spread gives finite logits, and where it shifts by a hundredth, about the same ones."""
    fusion, features = fusion
    features[:, 0] = 7.0
    fusion.standardise(features)
    assert torch.isfinite(fusion(features)).all()
    before = fusion(features)
    features[:, 0] += 0.01
    assert (fusion(features) - before).abs().max() < 0.1
