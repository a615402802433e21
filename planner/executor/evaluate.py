"""Evaluation of a bundle: its accuracy on the test part, after a check that its sub-models are as planned.

Legend: B images, F embed dims of all devices together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from planner.errors import PlannerError
from planner.executor.bundle import Bundle, kept_channels
from planner.network import audit, counts, data
from planner.network.evaluation import apply_in_batches, right_answers
from planner.network.side_by_side import work_side_by_side
from planner.network.vit import Block, VisionTransformer
from planner.rules import cost
from planner.schema import Assignment, Evaluation, Profile, Size
from planner.workers import usable_cores


@dataclass(frozen=True)
class _Counts:
    heads: list[int]
    channels: list[int]
    params: int
    macs: int


def evaluate_bundle(bundle: Bundle) -> Evaluation:
    """Measure a bundle on the test part, without the images that calibrate predictions.

    Raises:
        InputError: If the test part cannot be read.
        PlannerError: If a sub-model is not what the plan says: heads, channels, params or MACs.
    """
    plan, profile = bundle.plan, bundle.profile
    planned = {}
    for a, sub_model in zip(plan.assignments, bundle.sub_models, strict=True):
        planned[a.device] = verify_sub_model(a, profile, sub_model)
    test, num_calibration_images = data.load_test(bundle.card)
    with work_side_by_side(usable_cores()):
        whole_right = right_answers(bundle.whole, test.images, test.labels)
        features = [apply_in_batches(sub_model.features, test.images) for sub_model in bundle.sub_models]
    joined = torch.cat(features, dim=1)
    fused_right = right_answers(bundle.fusion, joined, test.labels)
    without = {a.device: _right_without(bundle, joined, d, test.labels) for d, a in enumerate(plan.assignments)}
    whole = counts.exact(bundle.whole.shape)
    return Evaluation(
        num_images=len(test),
        num_calibration_images=num_calibration_images,
        whole_accuracy=float(whole_right.float().mean()),
        fused_accuracy=float(fused_right.float().mean()),
        whole_by_class=_by_class(profile, whole_right, test.labels),
        fused_by_class=_by_class(profile, fused_right, test.labels),
        without_device={device: float(right.float().mean()) for device, right in without.items()},
        without_device_by_class={device: _by_class(profile, right, test.labels) for device, right in without.items()},
        whole=Size(params=whole.params, macs=whole.macs),
        devices=planned,
    )


def _right_without(bundle: Bundle, joined: Tensor, device: int, labels: Tensor) -> Tensor:
    """Return for each image whether the devices' features (B, F) give its label with one device missing, (B,)."""
    present = torch.ones(1, len(bundle.sub_models))
    present[0, device] = 0
    return right_answers(lambda batch: bundle.fusion(batch, present.expand(len(batch), -1)), joined, labels)


def _by_class(profile: Profile, is_right: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the accuracy of each class; classes without a test image are left out."""
    of_class = ((name, is_right[labels == c]) for c, name in enumerate(profile.classes))
    return {name: float(right.float().mean()) for name, right in of_class if len(right)}


def verify_sub_model(a: Assignment, profile: Profile, sub_model: VisionTransformer) -> Size:
    """Return the size of a sub-model, which must be the planned one.

    The plan counts norms and output biases of every half of a block, also of those that lost
    all of their units: they are added to the counts of the network.

    Raises:
        PlannerError: If anything differs.
    """
    width = profile.width(a.embed_dim)
    assert width is not None
    heads, channels = [len(b) for b in a.kept_heads], [len(b) for b in kept_channels(profile, a)]
    planned = _Counts(heads, channels, cost.params(width, heads, channels), cost.macs(width, heads, channels))
    shape = sub_model.shape
    counted = audit.count(sub_model) + counts.of_missing_halves(shape)
    realised = _Counts(
        [_units(block)[0] for block in sub_model.blocks],
        [_units(block)[1] for block in sub_model.blocks],
        counted.params,
        counted.macs,
    )
    if planned != realised:
        raise PlannerError(f"{a.device}: the sub-model must be as planned ({planned}), got {realised}.")
    return Size(params=planned.params, macs=planned.macs)


def _units(block: nn.Module) -> tuple[int, int]:
    """Return the heads and hidden channels that a block's tensors have."""
    assert isinstance(block, Block)
    heads = 0 if block.attn is None else block.attn.proj.in_features // block.attn.head_dim
    return heads, 0 if block.mlp is None else block.mlp.fc2.in_features
