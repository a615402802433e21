"""Head layers fitted to the whole model's answers in closed form, and from there to its probabilities.

There are as many samples as images, often fewer than a head has inputs times a few, so how far a fit may go is decided
by samples that it did not see: the ridge of the least-squares fit by leaving out each sample in turn, which needs no
refit, and the penalty of the convex fit by a fifth of the samples.

Legend: B images, E embed dim, C classes.

Source:
    Leave-one-out residuals of ridge regression: Golub, Heath and Wahba, doi:10.1080/00401706.1979.10489751.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.distillation_losses import soft_target_loss
from planner.network.least_squares import RidgeRegression
from planner.network.losses import TEMPERATURE

_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Penalties on changes of the convex fit, as a share of the loss, and steps of its quasi-Newton method at most.
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_MAX_STEPS = 50
# Every fifth sample decides between the penalties; of fewer samples than this, none does, and nothing changes.
_FOLDS = 5
_MIN_SAMPLES = 25


def fit_logits(head: nn.Linear, inputs: Tensor, logits: Tensor) -> RidgeRegression:
    """Refit a head layer in place by ridge regression, so that its outputs follow the whole model's logits.

    Args:
        head: Layer to refit.
        inputs: Its inputs, (B, E).
        logits: Targets, (B, C).

    Returns:
        The regression, which knows the moments of the inputs.
    """
    regression = RidgeRegression(head)
    regression.add(inputs, logits, torch.ones(len(inputs)))
    regression.solve(best_ridge(inputs, logits - head(inputs)))
    return regression


def best_ridge(inputs: Tensor, residuals: Tensor) -> float:
    """Return the ridge with the smallest sum of squared leave-one-out errors.

    Args:
        inputs: (B, E).
        residuals: Targets less the layer's outputs as it is, (B, C).
    """
    x, y = inputs.double(), residuals.double()
    x, y = x - x.mean(0), y - y.mean(0)
    left, singular, _ = torch.linalg.svd(x, full_matrices=False)
    projected, scale = left.T @ y, x.square().mean()

    def error(ridge: float) -> float:
        # Singular values of zero have no share, at no ridge.
        kept = singular.square() / (singular.square() + ridge * scale * len(x)).clamp(min=1e-30)
        # The mean is fitted, too.
        leverage = left.square() @ kept + 1 / len(x)
        left_out = (y - left @ (kept[:, None] * projected)) / (1 - leverage).clamp(min=1e-9)[:, None]
        return float(left_out.square().sum())

    return min(_RIDGES, key=error)


def fit_soft_targets(head: nn.Linear, inputs: Tensor, teacher_logits: Tensor) -> None:
    """Move a head layer, in place, to the minimum of its loss with soft targets and of a penalty on changes.

    It stays as it is where no penalty makes the loss of samples that were not fitted smaller.

    Args:
        head: Layer whose loss is to be minimal; it is convex in its parameters.
        inputs: Inputs of the layer, standardised, (B, E).
        teacher_logits: Logits to be followed, (B, C).

    Source:
        Fitting the head before the rest is trained spares the features: Kumar et al., arXiv 2202.10054.
    """
    if len(inputs) < _MIN_SAMPLES:
        return
    x, targets = inputs.double(), teacher_logits.double()
    held_out = torch.arange(len(x)) % _FOLDS == 0
    start = head.weight.detach().double(), head.bias.detach().double()

    def held_out_loss(parameters: tuple[Tensor, Tensor]) -> float:
        return float(soft_target_loss(F.linear(x[held_out], *parameters), targets[held_out], TEMPERATURE))

    losses = {p: held_out_loss(_minimum(start, x[~held_out], targets[~held_out], p)) for p in _PENALTIES}
    best = min(losses, key=losses.__getitem__)
    if losses[best] < held_out_loss(start):
        weight, bias = _minimum(start, x, targets, best)
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def _minimum(start: tuple[Tensor, Tensor], inputs: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the smallest loss plus penalty, by a quasi-Newton method."""
    weight, bias = (tensor.clone().requires_grad_() for tensor in start)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        with torch.enable_grad():
            optimizer.zero_grad()
            value = soft_target_loss(F.linear(inputs, weight, bias), targets, TEMPERATURE)
            value = value + penalty / 2 * (weight - start[0]).square().sum()
            value.backward()
        return value.item()

    optimizer.step(loss)
    return weight.detach(), bias.detach()
