"""Sub-models that learn on threads of their own: the same gradients, bit for bit, and at the same time."""

import threading

import pytest
import torch
from torch import Tensor, nn

from planner.network.joint_model import JointLoss, JointModel
from planner.network.side_by_side import values_side_by_side, work_side_by_side
from tests.helpers.common import PATIENCE_S
from tests.helpers.plain_vit import random_model
from tests.network.test_losses import SHAPE, batch, random_fusion


def gradients(num_threads: int, in_bfloat16: bool = False) -> dict[str, Tensor]:
    """Return the gradients of all parameters of three sub-models and their fusion."""
    models = [random_model(SHAPE, seed) for seed in (1, 2, 3)]
    joint = JointModel(models, random_fusion([8, 8, 8])).train()
    loss = JointLoss([[0], [1, 2], [3]], 4, 0.3)
    with work_side_by_side(num_threads), torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
        loss(joint, batch(), torch.Generator().manual_seed(0)).backward()
    return {name: p.grad for name, p in joint.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("in_bfloat16", [False, True])
def test_gradients_are_the_same_bit_for_bit(in_bfloat16: bool) -> None:
    """On two threads as on one, of every parameter that learns, in either precision."""
    alone, together = gradients(1, in_bfloat16), gradients(2, in_bfloat16)
    assert alone.keys() == together.keys()
    assert len(alone) > 30
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert any(gradient.abs().sum() > 0 for gradient in alone.values())


def test_values_and_gradients_are_computed_at_the_same_time() -> None:
    """Two functions, and what goes back through them, wait for each other: each ends only where both have begun."""
    forward, backward = threading.Barrier(2, timeout=PATIENCE_S), threading.Barrier(2, timeout=PATIENCE_S)
    weights = [nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))]

    class Meeting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            forward.wait()
            return x.clone()

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            backward.wait()
            return gradients[0]

    def value_of(weight: Tensor) -> Tensor:
        value: Tensor = Meeting.apply(weight * weight)  # type: ignore[no-untyped-call]
        return value

    with work_side_by_side(2):
        values = values_side_by_side([lambda w=w: value_of(w) for w in weights])  # type: ignore[misc]
        (values[0] + 10 * values[1]).backward()
    assert [float(v.detach()) for v in values] == [4.0, 9.0]
    assert [float(w.grad) for w in weights if w.grad is not None] == [4.0, 60.0]


def test_without_gradients_no_graph_is_made() -> None:
    """What a frozen joint model gives needs no gradient."""
    joint = JointModel([random_model(SHAPE, seed) for seed in (1, 2)], random_fusion([8, 8])).eval()
    alone = joint(batch().inputs)
    with work_side_by_side(2), torch.no_grad():
        together = joint(batch().inputs)
    assert torch.equal(alone, together)
    assert not together.requires_grad


def test_an_error_of_a_function_is_the_callers() -> None:
    """It is not lost with its thread."""

    def failing() -> Tensor:
        raise ValueError("no value")

    with work_side_by_side(2), pytest.raises(ValueError, match="no value"):
        values_side_by_side([failing, lambda: torch.zeros(1, requires_grad=True)])
