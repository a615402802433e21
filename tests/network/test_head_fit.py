"""Head layers: the ridge of the smallest leave-one-out error by brute force, and a convex fit that never overfits."""

import copy

import pytest
import torch
from torch import Tensor, nn

from planner.network.distillation_losses import soft_target_loss
from planner.network.head_fit import best_ridge, fit_logits, fit_soft_targets
from planner.network.least_squares import RidgeRegression
from planner.network.losses import TEMPERATURE

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def random_problem(seed: int, samples: int, inputs: int, noise: float) -> tuple[Tensor, Tensor]:
    """Return inputs (B, E) and targets (B, 3) of a linear law with noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, inputs, generator=generator) * torch.linspace(0.1, 3, inputs)
    law = torch.randn(inputs, 3, generator=generator)
    return x, x @ law / inputs**0.5 + noise * torch.randn(samples, 3, generator=generator)


def fresh_head(inputs: int) -> nn.Linear:
    """Return a head layer of zeros."""
    head = nn.Linear(inputs, 3)
    for p in head.parameters():
        nn.init.zeros_(p)
    return head.requires_grad_(False)


def left_out_error(x: Tensor, y: Tensor, ridge: float) -> float:
    """Return the sum of squared errors of each sample as foretold by a fit of the others, one by one."""
    total, scale = 0.0, (x - x.mean(0)).double().square().mean()
    for i in range(len(x)):
        others = torch.arange(len(x)) != i
        a, b = x[others].double(), y[others].double()
        mean = a.mean(0)
        matrix = (a - mean).T @ (a - mean) + ridge * scale * len(x) * torch.eye(a.shape[1], dtype=torch.float64)
        change = torch.linalg.solve(matrix, (a - mean).T @ (b - b.mean(0)))
        total += float((y[i] - b.mean(0) - (x[i] - mean) @ change).square().sum())
    return total


@pytest.mark.parametrize(("samples", "inputs", "noise"), [(40, 5, 0.1), (30, 30, 1.0), (20, 40, 0.5), (60, 20, 5.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_ridge_has_the_smallest_left_out_error(seed: int, samples: int, inputs: int, noise: float) -> None:
    """As many samples as inputs, fewer and more: by fits without each sample, it is the best, or as good within 2 %."""
    x, y = random_problem(seed, samples, inputs, noise)
    errors = {ridge: left_out_error(x, y, ridge) for ridge in RIDGES}
    assert errors[best_ridge(x, y)] <= 1.02 * min(errors.values())


def test_noise_asks_for_more_ridge() -> None:
    """Of a law without noise, the least ridge is best; of noise alone, the most."""
    x, y = random_problem(0, 40, 30, 0.0)
    assert best_ridge(x, y) == min(RIDGES)
    assert best_ridge(x, torch.randn(40, 3, generator=torch.Generator().manual_seed(1))) == max(RIDGES)


def test_as_many_samples_as_inputs_are_no_worse_than_the_mean() -> None:
    """Where plain least squares goes through every sample, new ones are still foretold better than by no fit."""
    x, y = random_problem(2, 80, 40, 1.0)
    head, plain = fresh_head(40), fresh_head(40)
    fit_logits(head, x[:41], y[:41])
    regression = RidgeRegression(plain)
    regression.add(x[:41], y[:41], torch.ones(41))
    regression.solve(1e-6)
    errors = [float((y[41:] - layer(x[41:])).square().sum()) for layer in (head, plain)]
    assert errors[0] < float((y[41:] - y[:41].mean(0)).square().sum())
    assert errors[0] < errors[1] / 2


def soft_loss(head: nn.Linear, x: Tensor, logits: Tensor) -> float:
    """Return the loss of a head's probabilities with soft targets."""
    return float(soft_target_loss(head(x), logits, TEMPERATURE))


def test_probabilities_follow_the_whole_models() -> None:
    """From a start that is too small, new samples are answered more like the whole model."""
    x, logits = random_problem(3, 300, 6, 0.1)
    head = fresh_head(6)
    before = soft_loss(head, x[200:], logits[200:])
    fit_soft_targets(head, x[:200], logits[:200])
    assert soft_loss(head, x[200:], logits[200:]) < before / 2


def test_a_fit_that_would_not_help_changes_nothing() -> None:
    """Of targets without any law, and of too few samples, the start is left as it is; so is a head that is right."""
    x = random_problem(4, 60, 40, 0.0)[0]
    noise = 5 * torch.randn(60, 3, generator=torch.Generator().manual_seed(5))
    right = fresh_head(40)
    right.weight.copy_(torch.randn(3, 40, generator=torch.Generator().manual_seed(6)))
    for head, inputs, targets in (
        (fresh_head(40), x, noise),
        (fresh_head(40), x[:10], noise[:10]),
        (right, x, right(x)),
    ):
        before = copy.deepcopy(head.state_dict())
        fit_soft_targets(head, inputs, targets)
        for name, tensor in head.state_dict().items():
            torch.testing.assert_close(tensor, before[name], rtol=1e-4, atol=1e-5)
