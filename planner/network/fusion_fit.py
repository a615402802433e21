"""Fusion in closed form: a linear layer fitted as a head is, and laid into the fusion's two layers without loss.

Two hidden units carry one linear direction z of the features, since gelu(z) - gelu(-z) = z, and are free to bend it
later. Where there are too few for that, one unit carries a direction of little variance, shifted to where GELU is the
identity. So a fusion of H hidden units begins as the linear layer from features to logits, in the H directions of most
variance if there are more, and a whole model's features give the whole model's answer.

Legend: B samples, D devices, F embed dims of all devices together, H hidden units, C classes, R directions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from planner.network.distillation_data import FeatureData
from planner.network.fusion import Fusion
from planner.network.head_fit import fit_logits, fit_soft_targets
from planner.network.losses import draw_present

# A linear layer of a hundred classes and a thousand features is fitted to so many in a minute.
_MAX_SAMPLES = 8192
# Where GELU differs from the identity by less than 1e-4, and the deviation of a unit there: at a quarter of the shift
# it is eight deviations from where they part.
_SINGLE_SHIFT, _SINGLE_SCALE = 8.0, 0.5
# Less variance of a direction, as a share of the largest, is rounding.
_MIN_VARIANCE = 1e-9


@dataclass(frozen=True, eq=False)
class FusionFit:
    """Preparation of a fusion: its fit in closed form to the features of frozen sub-models."""

    data: FeatureData
    seed: int

    @property
    def num_images(self) -> int:
        """Number of images that are looked at."""
        return min(len(self.data), self.max_images)

    @property
    def max_images(self) -> int:
        """Number of images that are looked at where there are more."""
        return _MAX_SAMPLES

    def __call__(self, module: nn.Module) -> None:
        """Fit a fusion in place."""
        assert isinstance(module, Fusion)
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(self.data), generator=generator)[: self.num_images]
        batch = self.data.batch(chosen, generator)
        num_devices = len(module.embed_dims)
        # Nobody answers in place of an only device.
        present = draw_present(len(chosen), num_devices, generator) if num_devices > 1 else torch.ones(len(chosen), 1)
        fit_fusion(module, batch.inputs, batch.teacher_logits, present)


@torch.no_grad()
def fit_fusion(fusion: Fusion, features: Tensor, teacher_logits: Tensor, present: Tensor) -> None:
    """Fit a fusion in place so that its probabilities follow the whole model's.

    Args:
        fusion: Fusion that standardises features already.
        features: Features of the devices side by side, (B, F).
        teacher_logits: Logits to be followed, (B, C).
        present: Mask of the devices that answer for each sample, (B, D) of 0 and 1.
    """
    inputs = fusion.standardised(features, present)
    linear = nn.Linear(inputs.shape[1], teacher_logits.shape[1])
    linear.weight.zero_()
    linear.bias.zero_()
    fit_logits(linear, inputs, teacher_logits)
    fit_soft_targets(linear, inputs, teacher_logits)
    _lay_into(fusion, linear, inputs)


def _lay_into(fusion: Fusion, linear: nn.Linear, inputs: Tensor) -> None:
    """Make a fusion compute a linear layer, in as many directions of its logits as there are hidden units.

    Hidden units that are left over stay as they are and add nothing at first.
    """
    logits = (inputs @ linear.weight.T).double()
    mean = logits.mean(0)
    variances, directions = torch.linalg.eigh((logits - mean).T @ (logits - mean) / len(logits))
    variances, num_hidden = variances.clamp(min=0), fusion.fc1.out_features
    rank = min(num_hidden, int((variances > _MIN_VARIANCE * variances[-1]).sum()))
    # Those of most variance first.
    directions, deviations = directions.flip(1)[:, :rank], variances.flip(0)[:rank].sqrt()  # (C, R), (R,)
    rows = (directions.T @ linear.weight.double()) / deviations[:, None]  # (R, F), of unit variance
    columns = directions * deviations  # (C, R)
    num_pairs = min(rank, num_hidden - rank)
    pairs, singles = slice(0, num_pairs), slice(num_pairs, rank)
    opposite = slice(rank, rank + num_pairs)
    fusion.fc1.bias.zero_()
    fusion.fc1.weight[pairs], fusion.fc1.weight[opposite] = rows[pairs].float(), -rows[pairs].float()
    fusion.fc1.weight[singles] = _SINGLE_SCALE * rows[singles].float()
    fusion.fc1.bias[singles] = _SINGLE_SHIFT
    fusion.fc2.weight.zero_()
    fusion.fc2.weight[:, pairs], fusion.fc2.weight[:, opposite] = columns[:, pairs].float(), -columns[:, pairs].float()
    fusion.fc2.weight[:, singles] = columns[:, singles].float() / _SINGLE_SCALE
    # Of the mean logits, what lies in no direction that is kept, and less what the shifts add.
    lost = mean - directions @ (directions.T @ mean)
    shifts = columns[:, singles].sum(1) * _SINGLE_SHIFT / _SINGLE_SCALE
    fusion.fc2.bias.copy_(linear.bias + (lost - shifts).float())
