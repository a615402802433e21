"""Mixed images: what each batch is made of, and what labels say of it."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import Batch, DistillationData, MixedLabels, make_distillation_data
from planner.network.losses import OwnClassesLoss, RelationMatchingLoss
from planner.network.mixing import MixedData
from planner.network.vit import Shape
from tests.helpers.plain_vit import generator, random_images, random_model

SHAPE = Shape(8, 2, 2, 4, embed_dim=8, head_dim=4, num_heads=(2, 1), hidden_dim=(5, 3))
TEACHER = random_model(SHAPE)
LABELS = torch.arange(12) % 4
INDICES = torch.tensor([3, 0, 7, 10, 5, 2])


def images_of_numbers() -> DistillationData:
    """Return twelve images, each of its own number in all pixels."""
    images = torch.arange(12.0)[:, None, None, None].expand(12, 2, 8, 8).contiguous()
    return make_distillation_data(TEACHER, Samples(images, LABELS), Jitter(0.0, 0.0), seed=0)


def shares_of_own(batch: Batch, indices: Tensor) -> Tensor:
    """Return for each pixel the share of the image itself, where it is mixed with the batch in reverse."""
    own, other = indices.double(), indices.flip(0).double()
    pixels = (batch.inputs.double() - other[:, None, None, None]) / (own - other)[:, None, None, None]
    return pixels.round(decimals=4)


@pytest.mark.parametrize("seed", range(12))
def test_images_are_mixed_with_the_batch_in_reverse(seed: int) -> None:
    """By a common share of all pixels, or by a box that is the same in all images; labels say how much is whose."""
    batch = MixedData(images_of_numbers()).batch(INDICES, generator(seed))
    shares = shares_of_own(batch, INDICES)
    assert (shares == shares[0, 0]).all()
    assert batch.mixed is not None
    assert torch.equal(batch.labels, LABELS[INDICES])
    assert torch.equal(batch.mixed.labels, LABELS[INDICES.flip(0)])
    assert batch.mixed.shares.numpy() == pytest.approx(np.full(6, 1 - shares.mean().item()), abs=1e-4)
    assert len(batch.teacher_logits) == 6
    assert batch.teacher_logits.numel() == 0
    pixels = shares[0, 0]
    if len(pixels.unique()) > 1:
        # A box: rows and columns that are all or none of the other image.
        outside = pixels == 1
        rows, columns = ~outside.all(1), ~outside.all(0)
        assert torch.equal(~outside, rows[:, None] & columns[None])
        assert (pixels[~outside] == 0).all()


def test_both_ways_to_mix_are_taken_as_often() -> None:
    """Shares of mixup spread over all values; a box has the expected size but where the edge cuts it off."""
    data = MixedData(images_of_numbers())
    boxes, plain = list[float](), list[float]()
    for seed in range(400):
        batch = data.batch(INDICES, generator(seed))
        pixels = shares_of_own(batch, INDICES)[0, 0]
        (boxes if {*pixels.unique().tolist()} <= {0.0, 1.0} else plain).append(pixels.mean().item())
    # Half of 400, within four deviations of 10; a box may be empty or all there is.
    assert 160 <= len(boxes) <= 240
    # A beta distribution of equal parameters has a mean of a half; of 0.8 a deviation of 0.31.
    assert np.mean(plain) == pytest.approx(0.5, abs=4 * 0.31 / len(plain) ** 0.5)
    assert np.std(plain) == pytest.approx(0.31, abs=0.05)
    assert np.mean(boxes) > 0.5


def test_mixed_labels_are_shares_of_classes() -> None:
    """A third of another class, and all of the own where both are the same."""
    mixed = MixedLabels(torch.tensor([1, 3]), torch.tensor([1 / 3, 0.25]))
    batch = Batch(torch.zeros(2), torch.tensor([0, 3]), torch.zeros(2, 0), torch.zeros(2, 0), mixed)
    expected = [[2 / 3, 1 / 3, 0, 0], [0, 0, 0, 1]]
    assert batch.label_shares(4).numpy() == pytest.approx(np.array(expected))
    assert batch.to(torch.device("cpu")).label_shares(4).numpy() == pytest.approx(np.array(expected))
    plain = batch._replace(mixed=None)
    assert plain.label_shares(4).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_of_mixtures_the_teacher_is_asked_again() -> None:
    """The loss is that of the same images with the teacher's outputs for them, half of each label's share."""
    own = [1, 3]
    images, labels = random_images(SHAPE, 4), torch.tensor([1, 3, 3, 1])
    mixed = MixedLabels(labels.flip(0), torch.full((4,), 0.3))
    none = torch.zeros(4, 0)
    student, loss = random_model(SHAPE, 4), RelationMatchingLoss(own, TEACHER)
    found = loss(student, Batch(images, labels, none, none, mixed), generator()).item()
    with torch.no_grad():
        outputs = TEACHER(images)
    ends = [loss(student, Batch(images, y, outputs, none), generator()).item() for y in (labels, labels.flip(0))]
    # The loss is linear in the labels' shares.
    assert found == pytest.approx(0.7 * ends[0] + 0.3 * ends[1], rel=1e-5)


def test_own_classes_alone_compete() -> None:
    """Cross-entropy among own classes, whatever the logits of others are."""
    images, labels = random_images(SHAPE, 3), torch.tensor([1, 3, 1])
    model, none = random_model(SHAPE, 2), torch.zeros(3, 0)
    found = OwnClassesLoss([1, 3], 4)(model, Batch(images, labels, none, none), generator()).item()
    expected = F.cross_entropy(model(images)[:, [1, 3]], torch.tensor([0, 1, 0])).item()
    assert found == pytest.approx(expected, rel=1e-6)
