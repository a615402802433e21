"""Fusion in closed form: it is the linear layer that it was laid from, and a whole model's answer is its own."""

import pytest
import torch
from torch import Tensor, nn

from planner.network.fusion import Fusion, fresh_fusion
from planner.network.fusion_fit import fit_fusion
from planner.network.head_fit import fit_logits, fit_soft_targets


def random_features(seed: int, num_dims: int, samples: int = 400) -> Tensor:
    """Return features (B, F) of unequal scales and means."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, num_dims, generator=generator) * torch.linspace(0.2, 5, num_dims) + 3


def linear_logits(features: Tensor, num_classes: int, seed: int = 1) -> Tensor:
    """Return logits (B, C) that a linear layer makes of features."""
    weight = torch.randn(features.shape[1], num_classes, generator=torch.Generator().manual_seed(seed))
    logits: Tensor = features @ weight / features.shape[1] ** 0.5 + torch.arange(num_classes)
    return logits


def fitted(features: Tensor, logits: Tensor, hidden: int, present: Tensor | None = None) -> Fusion:
    """Return a fusion of two devices that was fitted in closed form."""
    half = features.shape[1] // 2
    fusion = fresh_fusion(features, [half, features.shape[1] - half], hidden, logits.shape[1], seed=0)
    fit_fusion(fusion, features, logits, torch.ones(len(features), 2) if present is None else present)
    return fusion.requires_grad_(False)


@pytest.mark.parametrize("hidden", [6, 7, 11, 12, 13, 40])
def test_linear_logits_are_met_with_as_many_hidden_units_as_classes(hidden: int) -> None:
    """Half as many, pairs and single units, or more than enough."""
    features = random_features(0, 9)
    logits = linear_logits(features, 6)
    found = fitted(features, logits, hidden)(features)
    assert (found - logits).abs().max() < 0.02 * logits.std()


def test_few_hidden_units_carry_the_directions_of_most_variance() -> None:
    """The squared error is that of the best approximation of this rank, by Eckart and Young."""
    features = random_features(2, 12)
    logits = linear_logits(features, 10)
    found = fitted(features, logits, hidden=4)(features)
    singular = torch.linalg.svdvals((logits - logits.mean(0)).double())
    error = (found - logits).double().square().sum()
    assert error == pytest.approx(float(singular[4:].square().sum()), rel=0.05)


def test_fusion_is_the_fitted_linear_layer_where_devices_are_missing_too() -> None:
    """The two ways to the same logits."""
    features = random_features(3, 10)
    generator = torch.Generator().manual_seed(5)
    logits = linear_logits(features, 4) + torch.randn(400, 4, generator=generator)
    present = (torch.rand(400, 2, generator=generator) > 0.2).float()
    fusion = fitted(features, logits, 16, present)
    linear = nn.Linear(10, 4).requires_grad_(False)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    inputs = fusion.standardised(features, present)
    fit_logits(linear, inputs, logits)
    fit_soft_targets(linear, inputs, logits)
    torch.testing.assert_close(fusion(features, present), linear(inputs), rtol=1e-3, atol=1e-3)


def test_features_that_tell_nothing_give_the_mean_answer() -> None:
    """The mean logits are all that is left."""
    logits = linear_logits(random_features(4, 6), 3)
    found = fitted(torch.ones(400, 6), logits, 8)(torch.ones(400, 6))
    assert torch.isfinite(found).all()
    assert (found.argmax(1) == logits.softmax(1).mean(0).argmax()).all()
