"""Weighted ridge regression of a linear layer, from sums that do not grow with the number of samples.

For inputs a_t (n,), targets y_t (m,) and sample weights w_t, the layer W, b is moved to the minimum of

    sum_t w_t |W a_t + b - y_t|^2  +  ridge mean_i(sum_t w_t (a_ti - mean a_i)^2) |W - W_0|^2

where W_0 is the layer as it is. The penalty pulls towards W_0 and not towards zero, so the squared error never rises:
W_0 with its own b is a candidate without penalty. Sums are in double precision; where columns are constant, collinear
or zero, the penalty keeps the matrix positive definite.

Legend: T samples, n inputs, m outputs.

Source:
    Hoerl and Kennard, Ridge regression, doi:10.1080/00401706.1970.10488634.
"""

import torch
from torch import Tensor, nn

# Smallest penalty, as a share of the inputs' mean second moment.
_MIN_RIDGE = 1e-8
# Smallest variance of an input that varies, as a share of its second moment: less is rounding.
_MIN_VARIANCE = 1e-9


class RidgeRegression:
    """Sums over samples for the residual of one linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        n, m = layer.in_features, layer.out_features
        self.weight = torch.zeros((), dtype=torch.float64)
        self.input_sum = torch.zeros(n, dtype=torch.float64)
        self.residual_sum = torch.zeros(m, dtype=torch.float64)
        self.gram = torch.zeros(n, n, dtype=torch.float64)
        self.cross = torch.zeros(n, m, dtype=torch.float64)

    def add(self, inputs: Tensor, residuals: Tensor, weights: Tensor) -> None:
        """Add samples.

        Args:
            inputs: Inputs of the layer, (T, n).
            residuals: Targets less the layer's outputs as it is, (T, m).
            weights: Weight of each sample, (T,).
        """
        a, r, w = inputs.double(), residuals.double(), weights.double()[:, None]
        weighted = w * a
        self.weight = self.weight + w.sum()
        self.input_sum += weighted.sum(0)
        self.residual_sum += (w * r).sum(0)
        self.gram += weighted.T @ a
        self.cross += weighted.T @ r

    def input_moments(self) -> tuple[Tensor, Tensor]:
        """Return weighted mean and standard deviation of each input, (n,); a constant input has a deviation of 1."""
        mean = self.input_sum / self.weight
        second = self.gram.diagonal() / self.weight
        variance = second - mean**2
        return mean, torch.where(variance > _MIN_VARIANCE * second, variance, 1.0).sqrt()

    def solve(self, ridge: float) -> None:
        """Move the layer, in place, to the minimum for all samples that were added."""
        if self.weight <= 0:
            return
        mean_input, mean_residual = self.input_sum / self.weight, self.residual_sum / self.weight
        covariance = self.gram - self.weight * torch.outer(mean_input, mean_input)
        covariance = (covariance + covariance.T) / 2
        cross = self.cross - self.weight * torch.outer(mean_input, mean_residual)
        change = torch.zeros_like(self.cross)
        second_moment = self.gram.diagonal().sum()
        if second_moment > 0:
            scale = covariance.diagonal().clamp(min=0).mean()
            # The second term drowns the rounding of sums where inputs hardly vary.
            penalty = ridge * scale + _MIN_RIDGE * second_moment / len(covariance)
            covariance.diagonal().add_(penalty)
            change = torch.linalg.solve(covariance, cross)
        with torch.no_grad():
            self.layer.weight.add_(change.T.to(self.layer.weight))
            self.layer.bias.add_((mean_residual - mean_input @ change).to(self.layer.bias))
