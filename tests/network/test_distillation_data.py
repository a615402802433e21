"""Distillation data: moved copies of images, the teacher's outputs for each copy, batches and validation splits."""

import math

import pytest
import torch
from torch import Tensor

from planner.network.data import Jitter, Samples
from planner.network.data.jitter import move_images
from planner.network.distillation_data import (
    DistillationData,
    FeatureData,
    copies_for,
    draw_moves,
    extract_features,
    make_distillation_data,
    moved_copies,
    split_validation,
)
from planner.network.vit import Shape
from tests.helpers.plain_vit import generator, random_images, random_model, stored_logits

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 1), hidden_dim=(5, 3))
IMAGES = random_images(SHAPE, 6)


def rows(*move: float, count: int = 6) -> Tensor:
    """Return the same move for `count` images."""
    return torch.tensor([move]).float().expand(count, 4)


# Moves


def test_a_mirrored_copy_is_flipped() -> None:
    """A mirrored copy is flipped from left to right, and not upside down."""
    torch.testing.assert_close(move_images(IMAGES, rows(0, 0, 0, 1)), IMAGES.flip(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, 1), (-2, 1)])
def test_a_shift_by_whole_pixels_moves_pixels(x: int, y: int) -> None:
    """Each pixel comes from (x, y) to the right and below; beyond the border, the border's pixels are repeated."""
    across, down = (torch.arange(4) + x).clamp(0, 3), (torch.arange(4) + y).clamp(0, 3)
    expected = IMAGES[:, :, down][:, :, :, across]
    torch.testing.assert_close(move_images(IMAGES, rows(0, x, y, 0)), expected, rtol=0, atol=1e-5)


def test_a_mirrored_copy_is_shifted_in_the_mirror() -> None:
    """A mirrored copy is shifted after it was mirrored."""
    across = (3 - torch.arange(4) - 1).clamp(0, 3)
    torch.testing.assert_close(move_images(IMAGES, rows(0, 1, 0, 1)), IMAGES[:, :, :, across], rtol=0, atol=1e-5)


def test_a_quarter_turn_is_a_rotation() -> None:
    """A positive angle turns counter-clockwise: what was at the bottom right is at the top right."""
    turned = move_images(IMAGES, rows(math.pi / 2, 0, 0, 0))
    torch.testing.assert_close(turned, torch.rot90(IMAGES, 1, (2, 3)), rtol=0, atol=1e-4)


def test_an_unmoved_copy_is_the_image_bit_for_bit() -> None:
    """A copy without any move equals its image exactly."""
    assert torch.equal(moved_copies(IMAGES, rows(0, 0, 0, 0)), IMAGES)


def test_moves_are_drawn_within_their_limits() -> None:
    """Angles and shifts span both directions up to their limits; half of the images are mirrored, or none."""
    moves = Jitter(1.5, 10.0, mirror=True).draw(2000, generator())
    limits = torch.tensor([math.radians(10), 1.5, 1.5])
    assert (moves[:, :3].abs() <= limits).all()
    assert (moves[:, :3].amin(0) < -0.95 * limits).all()
    assert (moves[:, :3].amax(0) > 0.95 * limits).all()
    assert set(moves[:, 3].tolist()) == {0.0, 1.0}
    assert moves[:, 3].mean() == pytest.approx(0.5, abs=0.05)
    assert not Jitter(1.5, 10.0).draw(2000, generator())[:, 3].any()
    assert Jitter(0.0, 0.0, mirror=True).is_active


def test_there_is_one_copy_where_nothing_moves() -> None:
    """The first copy is unmoved; where the jitter moves nothing, there is no other copy."""
    moves = draw_moves(5, Jitter(1.0, 0.0), seed=0, num_copies=3)
    assert moves.shape == (3, 5, 4)
    assert not moves[0].any()
    assert moves[1:, :, 1:3].all()
    assert draw_moves(5, Jitter(0.0, 0.0), seed=0, num_copies=3).shape == (1, 5, 4)


@pytest.mark.parametrize(
    ("epochs", "copies"), [(0, 1), (0.25, 1), (1, 1), (1.5, 2), (2, 2), (7, 7), (7.01, 8), (8, 8), (10, 8), (1e6, 8)]
)
def test_an_image_has_a_copy_for_each_epoch(epochs: float, copies: int) -> None:
    """One that was begun counts, one there always is, and eight are the most."""
    assert copies_for(epochs) == copies


# Distillation data


def counted(copies: int = 3, images: int = 6, labels: Tensor | None = None) -> DistillationData:
    """Return distillation data whose teacher logits name copy and image: 100 times the copy plus the image."""
    moves = torch.zeros(copies, images, 4)
    moves[1, :, 3] = 1
    numbers = (100 * torch.arange(copies)[:, None] + torch.arange(images)).float()
    labels = torch.arange(images) % 3 if labels is None else labels
    return DistillationData(random_images(SHAPE, images), labels, moves, numbers[..., None], numbers[..., None] + 0.5)


def test_a_batch_holds_what_belongs_together() -> None:
    """Each image comes in the copy that its teacher logits, teacher features and features belong to."""
    data, indices = counted(), torch.tensor([4, 0, 4, 2])
    features = FeatureData(data, stored_logits(data).expand(-1, -1, 2) + 7)
    seen = set()
    for seed in range(20):
        batch = data.batch(indices, generator(seed))
        copy, image = (
            (batch.teacher_logits[:, 0] // 100).int().tolist(),
            (batch.teacher_logits[:, 0] % 100).int().tolist(),
        )
        assert image == indices.tolist()
        assert torch.equal(batch.labels, data.labels[indices])
        assert torch.equal(batch.teacher_features, batch.teacher_logits + 0.5)
        for got, k, i in zip(batch.inputs, copy, image, strict=True):
            expected = data.images[i].flip(2) if k == 1 else data.images[i]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        found = features.batch(indices, generator(seed))
        assert torch.equal(found.inputs, found.teacher_logits.expand(-1, 2) + 7)
        assert torch.equal(found.teacher_logits, batch.teacher_logits)
        seen.add(tuple(copy))
    assert {k for copy in seen for k in copy} == {0, 1, 2}
    assert len(seen) > 10
    assert len(features) == len(data) == 6


def test_the_teacher_sees_each_copy() -> None:
    """Teacher logits and features are those of the moved image; progress is reported copy by copy."""
    teacher, reports = random_model(SHAPE), []
    samples = Samples(IMAGES, torch.arange(6) % 3)
    data = make_distillation_data(teacher, samples, Jitter(1.0, 9.0, True), 5, 3, lambda *done: reports.append(done))
    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for k in range(3):
        images = move_images(IMAGES, data.moves[k])
        torch.testing.assert_close(stored_logits(data)[k], teacher(images).detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(data.teacher_features[k], teacher.features(images).detach(), rtol=1e-4, atol=1e-4)
    small = random_model(SHAPE, 1)
    features = extract_features([teacher, small], data).features
    assert torch.equal(features[:, :, :8], data.teacher_features)
    torch.testing.assert_close(features[0, :, 8:], small.features(IMAGES).detach(), rtol=1e-4, atol=1e-4)


# Splits


@pytest.mark.parametrize("sizes", [[3], [1, 2, 3], [20, 31, 3, 1], [100, 100]])
def test_a_split_holds_out_a_tenth_of_each_class(sizes: list[int]) -> None:
    """A tenth of each class is held out, to the nearest image, and every class keeps samples for training."""
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=generator())]
    data = counted(images=len(labels), labels=labels)
    training, validation = split_validation(data, seed=3)
    assert torch.bincount(validation.labels, minlength=len(sizes)).tolist() == [round(n / 10) for n in sizes]
    numbers = torch.cat([stored_logits(part)[0, :, 0] for part in (training, validation)]).int()
    assert sorted(numbers.tolist()) == list(range(len(labels)))
    for part in (training, validation):
        chosen = stored_logits(part)[0, :, 0].int()
        assert torch.equal(part.labels, labels[chosen])
        assert torch.equal(part.images[:], data.images[chosen])
        assert torch.equal(part.moves, data.moves[:, chosen])
        assert torch.equal(part.teacher_features, data.teacher_features[:, chosen])


def test_a_large_share_leaves_one_of_each_class() -> None:
    """A share of 1 still leaves one sample of each class for training."""
    training, validation = split_validation(counted(images=6), share=1.0, seed=0)
    assert sorted(training.labels.tolist()) == [0, 1, 2]
    assert sorted(validation.labels.tolist()) == [0, 1, 2]


def test_a_split_depends_on_the_seed() -> None:
    """The same seed holds out the same images, another seed others."""
    data = counted(images=100, labels=torch.arange(100) % 2)
    first, again, other = (stored_logits(split_validation(data, seed=seed)[1])[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
