"""Ridge regression towards the layer as it is: never a larger error, whatever the inputs."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from planner.network.least_squares import RidgeRegression, RidgeRegressions

Form = Literal["plain", "collinear", "constant", "dead", "few", "huge"]
FORMS: tuple[Form, ...] = ("plain", "collinear", "constant", "dead", "few", "huge")


def drawn(form: Form, seed: int) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """Return a layer, inputs (T, 6), targets (T, 3) and weights (T,) of some form."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 6, generator=generator))
        layer.bias.copy_(torch.randn(3, generator=generator))
    inputs = torch.randn(4 if form == "few" else 40, 6, generator=generator)
    if form == "collinear":
        inputs[:, 3:] = 2 * inputs[:, :3]
    if form == "constant":
        inputs[:] = inputs[0].clone()
    if form == "dead":
        inputs[:, [1, 4]] = 0
    if form == "huge":
        inputs *= 1e4
    targets = torch.randn(len(inputs), 3, generator=generator)
    return layer, inputs, targets, torch.rand(len(inputs), generator=generator) + 0.1


def squared_error(layer: nn.Linear, inputs: Tensor, targets: Tensor, weights: Tensor) -> float:
    """Return the weighted squared error in double precision."""
    outputs = inputs.double() @ layer.weight.detach().double().T + layer.bias.detach().double()
    return float((weights.double()[:, None] * (outputs - targets.double()) ** 2).sum())


def refit(layer: nn.Linear, inputs: Tensor, targets: Tensor, weights: Tensor, ridge: float, parts: int = 1) -> None:
    """Refit a layer from samples that come in so many parts."""
    regression = RidgeRegression(layer)
    for i in torch.arange(len(inputs)).chunk(parts):
        regression.add(inputs[i], targets[i], weights[i])
    regression.solve(ridge)


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(FORMS), seed=st.integers(0, 10**6), exponent=st.integers(-6, 3))
def test_the_error_never_rises(form: Form, seed: int, exponent: int) -> None:
    """At any penalty and for any inputs, the refitted layer is no worse on its own samples."""
    layer, inputs, targets, weights = drawn(form, seed)
    before = squared_error(layer, inputs, targets, weights)
    refit(layer, inputs, targets, weights, 10.0**exponent)
    # The layer is stored in float32: what it rounds away may show.
    assert squared_error(layer, inputs, targets, weights) <= before * (1 + 1e-5) + 1e-6
    assert torch.isfinite(layer.weight).all()


def test_without_penalty_it_is_weighted_least_squares() -> None:
    """The same layer as numpy's least squares on samples times the roots of their weights."""
    layer, inputs, targets, weights = drawn("plain", 3)
    refit(layer, inputs, targets, weights, 0.0)
    roots = weights.double().sqrt()[:, None].numpy()
    design = np.hstack([inputs.double().numpy(), np.ones((len(inputs), 1))])
    expected = np.linalg.lstsq(design * roots, targets.double().numpy() * roots, rcond=None)[0]
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected[:-1].T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.bias.detach().numpy(), expected[-1], rtol=1e-4, atol=1e-5)


def test_targets_may_follow_from_others_by_a_linear_map() -> None:
    """Sums of two values from which three targets follow give the layer that the targets themselves give."""
    layer, inputs, values, weights = drawn("plain", 7)
    values, weight, bias = values[:, :2], torch.randn(3, 2), torch.randn(3)
    plain, mapped = (copy.deepcopy(layer) for _ in range(2))
    refit(plain, inputs, values @ weight.T + bias, weights, 0.1)
    regression = RidgeRegression(mapped, (weight, bias))
    regression.add(inputs, values, weights)
    regression.solve(0.1)
    torch.testing.assert_close(mapped.weight, plain.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mapped.bias, plain.bias, rtol=1e-4, atol=1e-5)


def test_a_large_penalty_moves_the_bias_alone() -> None:
    """With the weights held, the bias makes the mean residual zero."""
    layer, inputs, targets, weights = drawn("plain", 4)
    before = layer.weight.detach().clone()
    refit(layer, inputs, targets, weights, 1e12)
    torch.testing.assert_close(layer.weight.detach(), before)
    with torch.no_grad():
        residual = (weights[:, None] * (targets - layer(inputs))).sum(0)
    torch.testing.assert_close(residual, torch.zeros(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_one_batch_and_many_are_the_same(form: Form) -> None:
    """Sums do not depend on how samples are divided."""
    layers = []
    for parts in (1, 2, 4):
        layer, inputs, targets, weights = drawn(form, 5)
        refit(layer, inputs, targets, weights, 1e-3, parts)
        layers.append(layer.weight.detach())
    for other in layers[1:]:
        torch.testing.assert_close(other, layers[0], rtol=1e-5, atol=1e-6)


def test_no_samples_and_no_inputs() -> None:
    """A layer without samples stays as it is; one without inputs gets the mean of its targets."""
    layer, *_ = drawn("plain", 6)
    before = layer.weight.detach().clone()
    RidgeRegression(layer).solve(1e-3)
    assert torch.equal(layer.weight, before)
    # torch warns when it draws no weights.
    empty = nn.Linear(1, 2)
    empty.in_features, empty.weight = 0, nn.Parameter(torch.zeros(2, 0))
    targets = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    refit(empty, torch.zeros(2, 0), targets, torch.ones(2), 1e-3)
    torch.testing.assert_close(empty.bias.detach(), torch.tensor([2.0, 4.0]))


@pytest.mark.parametrize("form", FORMS)
def test_gains_are_regressions_on_one_input_each(form: Form) -> None:
    """Gain and bias of each dim are those of a layer of one input and one output, refitted for itself."""
    _, inputs, _, weights = drawn(form, seed=5)
    targets = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(6))
    gain, bias = torch.linspace(-1, 2, 6), torch.linspace(3, 1, 6)
    layers = []
    for dim in range(6):
        layer = nn.Linear(1, 1)
        with torch.no_grad():
            layer.weight.fill_(gain[dim])
            layer.bias.fill_(bias[dim])
        one = RidgeRegression(layer)
        one.add(inputs[:, [dim]], targets[:, [dim]], weights)
        one.solve(ridge=0.1)
        layers.append(layer)
    regressions = RidgeRegressions(gain, bias)
    for part in torch.arange(len(inputs)).split(3):
        regressions.add(inputs[part], targets[part], weights[part])
    regressions.solve(ridge=0.1)
    expected = [
        torch.stack(values).detach().flatten() for values in zip(*((l.weight, l.bias) for l in layers), strict=True)
    ]
    torch.testing.assert_close(gain, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias, expected[1], rtol=1e-4, atol=1e-4)
