"""Batches on several threads: the same values, and an end where one fails or the command is interrupted."""

import threading

import pytest
import torch
from torch import Tensor

from planner.network.evaluation import apply_in_batches
from planner.network.side_by_side import work_side_by_side
from planner.network.vit import Shape
from tests.helpers.common import PATIENCE_S
from tests.helpers.plain_vit import random_model

SHAPE = Shape(
    image_size=8,
    patch_size=4,
    in_channels=2,
    num_classes=3,
    embed_dim=16,
    head_dim=4,
    num_heads=(4, 4),
    hidden_dim=(16, 16),
)
# Five batches of 64, the last one smaller.
NUM_IMAGES = 300


def test_values_are_the_same_bit_for_bit() -> None:
    """On one thread or three, in the order of the images, and fit for a training afterwards."""
    model = random_model(SHAPE)
    images = torch.randn(NUM_IMAGES, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = apply_in_batches(model, images)
    with work_side_by_side(3):
        together = apply_in_batches(model, images)
    assert torch.equal(alone, together)
    assert not together.is_inference()


def test_batches_run_at_the_same_time() -> None:
    """Two batches wait for each other, which ends only where both have begun; outside, one thread does all."""
    both = threading.Barrier(2, timeout=PATIENCE_S)
    threads = set()

    def meeting(images: Tensor) -> Tensor:
        both.wait()
        return images

    def noted(images: Tensor) -> Tensor:
        threads.add(threading.get_ident())
        return images

    with work_side_by_side(2):
        assert len(apply_in_batches(meeting, torch.zeros(128, 1))) == 128
    apply_in_batches(noted, torch.zeros(256, 1))
    assert threads == {threading.get_ident()}


def test_after_a_failure_nothing_more_is_begun() -> None:
    """The error of a batch, or an interrupt, ends the work: of many batches few were looked at."""
    begun = []

    def failing(images: Tensor) -> Tensor:
        begun.append(len(images))
        raise KeyboardInterrupt

    with work_side_by_side(2), pytest.raises(KeyboardInterrupt):
        apply_in_batches(failing, torch.zeros(64 * 400, 1))
    assert len(begun) < 400
