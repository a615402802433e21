"""Weighted ridge regression of a linear layer, from sums that do not grow with the number of samples.

For inputs a_t (n,), targets y_t (m,) and sample weights w_t, the layer W, b is moved to the minimum of

    sum_t w_t |W a_t + b - y_t|^2  +  ridge mean_i(sum_t w_t (a_ti - mean a_i)^2) |W - W_0|^2

where W_0 is the layer as it is. The penalty pulls towards W_0 and not towards zero, so the squared error never rises:
W_0 with its own b is a candidate without penalty. Sums are in double precision; where columns are constant, collinear
or zero, the penalty keeps the matrix positive definite.

For a gain and a bias of each dim, that is a regression on one input for each of them.

Targets may be given by a linear map of what was summed, y_t = V z_t + c: sums of a few z then serve for many y.

Legend: T samples, n inputs, m outputs, k values from which the outputs' targets follow.

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
    """Sums over samples for one linear layer."""

    def __init__(self, layer: nn.Linear, target_map: tuple[Tensor, Tensor] | None = None) -> None:
        """Start with no samples.

        Args:
            layer: Layer to refit.
            target_map: Weight (m, k) and bias (m,) of the map from what is added as targets to the layer's targets;
                they are the layer's targets themselves unless given.
        """
        self.layer, self.target_map = layer, target_map
        n, k = layer.in_features, layer.out_features if target_map is None else target_map[0].shape[1]
        self.weight = torch.zeros((), dtype=torch.float64)
        self.input_sum = torch.zeros(n, dtype=torch.float64)
        self.target_sum = torch.zeros(k, dtype=torch.float64)
        self.gram = torch.zeros(n, n, dtype=torch.float64)
        self.cross = torch.zeros(n, k, dtype=torch.float64)

    def add(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add samples.

        Args:
            inputs: Inputs of the layer, (T, n).
            targets: Its targets, (T, m), or what they are mapped from, (T, k).
            weights: Weight of each sample, (T,).
        """
        a, z, w = inputs.double(), targets.double(), weights.double()[:, None]
        weighted = w * a
        self.weight = self.weight + w.sum()
        self.input_sum += weighted.sum(0)
        self.target_sum += (w * z).sum(0)
        self.gram += weighted.T @ a
        self.cross += weighted.T @ z

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
        layer_weight, layer_bias = self.layer.weight.detach().double(), self.layer.bias.detach().double()
        mean_input, mean_target = self.input_sum / self.weight, self.target_sum / self.weight
        covariance = self.gram - self.weight * torch.outer(mean_input, mean_input)
        covariance = (covariance + covariance.T) / 2
        cross = self.cross - self.weight * torch.outer(mean_input, mean_target)
        if self.target_map is not None:
            map_weight, map_bias = (tensor.detach().double() for tensor in self.target_map)
            cross, mean_target = cross @ map_weight.T, map_weight @ mean_target + map_bias
        # Of what the layer as it is leaves over.
        cross = cross - covariance @ layer_weight.T
        mean_residual = mean_target - layer_weight @ mean_input - layer_bias
        change = torch.zeros_like(cross)
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


class RidgeRegressions:
    """Sums over samples for a gain and a bias of each of n dims, each dim a regression for itself."""

    def __init__(self, gain: Tensor, bias: Tensor) -> None:
        """Start with no samples.

        Args:
            gain: Gain of each dim, (n,), which is refitted in place.
            bias: Bias of each dim, (n,), likewise.
        """
        self.gain, self.bias = gain, bias
        # Of 1, a, y, a a and a y, each in a row.
        self.sums = torch.zeros(5, len(gain), dtype=torch.float64)

    def add(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add samples: inputs and targets, (T, n) both, and the weight of each sample, (T,)."""
        a, y, w = inputs.double(), targets.double(), weights.double()
        self.sums += torch.stack([w @ values for values in (torch.ones_like(a), a, y, a * a, a * y)])

    def solve(self, ridge: float) -> None:
        """Move gain and bias, in place, to the minimum for all samples that were added."""
        total, a, y, aa, ay = self.sums
        if (total <= 0).any():
            return
        gain, bias = self.gain.detach().double(), self.bias.detach().double()
        mean_a, mean_y = a / total, y / total
        variance = (aa / total - mean_a**2).clamp(min=0)
        covariance = ay / total - mean_a * mean_y - variance * gain
        change = covariance / ((1 + ridge) * variance + _MIN_RIDGE * aa / total).clamp(min=torch.finfo(a.dtype).tiny)
        with torch.no_grad():
            self.gain.add_(change.to(self.gain))
            self.bias.add_((mean_y - (gain + change) * mean_a - bias).to(self.bias))
