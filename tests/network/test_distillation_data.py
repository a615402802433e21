"""What is learned from: how copies are moved, what the teacher says of them, how lessons are drawn and split."""

import math

import pytest
import torch

from planner.network.data import Jitter, Samples
from planner.network.data.jitter import move_images
from planner.network.distillation_data import (
    DistillationData,
    FeatureData,
    distillation_data,
    draw_moves,
    find_features,
    moved_copies,
    split_validation,
)
from planner.network.vit import Shape
from tests.helpers.plain_vit import random_images, random_model

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 1), hidden_dim=(5, 3))
IMAGES = random_images(SHAPE, 6)


def generator(seed=0):
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def rows(*move, count=6):
    """Return the same move for so many images."""
    return torch.tensor([move]).float().expand(count, 4)


# Moves


def test_a_mirrored_copy_is_flipped():
    """Left is right, and up stays up."""
    torch.testing.assert_close(move_images(IMAGES, rows(0, 0, 0, 1)), IMAGES.flip(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, 1), (-2, 1)])
def test_a_shift_by_whole_pixels_is_a_roll(x, y):
    """Each pixel comes from so many to the right and below; beyond the border, the border's are repeated."""
    across, down = (torch.arange(4) + x).clamp(0, 3), (torch.arange(4) + y).clamp(0, 3)
    expected = IMAGES[:, :, down][:, :, :, across]
    torch.testing.assert_close(move_images(IMAGES, rows(0, x, y, 0)), expected, rtol=0, atol=1e-5)


def test_a_mirrored_copy_is_shifted_in_the_mirror():
    """Mirrored and moved by one pixel, a column comes from one to the left of where the mirror has it."""
    across = (3 - torch.arange(4) - 1).clamp(0, 3)
    torch.testing.assert_close(move_images(IMAGES, rows(0, 1, 0, 1)), IMAGES[:, :, :, across], rtol=0, atol=1e-5)


def test_a_quarter_turn_is_a_rotation():
    """A positive angle turns against the clock: what was at the bottom right is at the top right."""
    turned = move_images(IMAGES, rows(math.pi / 2, 0, 0, 0))
    torch.testing.assert_close(turned, torch.rot90(IMAGES, 1, (2, 3)), rtol=0, atol=1e-4)


def test_what_does_not_move_is_the_same_to_the_bit():
    """The first copy of an image is the image."""
    assert torch.equal(moved_copies(IMAGES, rows(0, 0, 0, 0)), IMAGES)


def test_moves_are_drawn_within_their_reach():
    """Angles and shifts span both directions up to their limits; half of the images are mirrored, or none."""
    moves = Jitter(1.5, 10.0, mirror=True).draw(2000, generator())
    limits = torch.tensor([math.radians(10), 1.5, 1.5])
    assert (moves[:, :3].abs() <= limits).all()
    assert (moves[:, :3].amin(0) < -0.95 * limits).all()
    assert (moves[:, :3].amax(0) > 0.95 * limits).all()
    assert set(moves[:, 3].tolist()) == {0.0, 1.0}
    assert moves[:, 3].mean() == pytest.approx(0.5, abs=0.05)
    assert not Jitter(1.5, 10.0).draw(2000, generator())[:, 3].any()
    assert Jitter(0.0, 0.0, mirror=True).moves


def test_copies_are_as_many_as_are_worth_it():
    """The first is as it is; if nothing moves, there is no other."""
    moves = draw_moves(5, Jitter(1.0, 0.0), seed=0, num_copies=3)
    assert moves.shape == (3, 5, 4)
    assert not moves[0].any()
    assert moves[1:, :, 1:3].all()
    assert draw_moves(5, Jitter(0.0, 0.0), seed=0, num_copies=3).shape == (1, 5, 4)


# Lessons


def counted(copies=3, images=6, labels=None):
    """Return lessons that tell copy and image: what the teacher says is 100 times the copy plus the image."""
    moves = torch.zeros(copies, images, 4)
    moves[1, :, 3] = 1
    said = (100 * torch.arange(copies)[:, None] + torch.arange(images)).float()
    labels = torch.arange(images) % 3 if labels is None else labels
    return DistillationData(random_images(SHAPE, images), labels, moves, said[..., None], said[..., None] + 0.5)


def test_a_batch_holds_what_belongs_together():
    """Each image comes in the copy that the teacher's answer, its token and its features are about."""
    lessons, indices = counted(), torch.tensor([4, 0, 4, 2])
    features = FeatureData(lessons, lessons.answers.expand(-1, -1, 2) + 7)
    seen = set()
    for seed in range(20):
        batch = lessons.batch(indices, generator(seed))
        copy, image = (batch.answers[:, 0] // 100).int().tolist(), (batch.answers[:, 0] % 100).int().tolist()
        assert image == indices.tolist()
        assert torch.equal(batch.labels, lessons.labels[indices])
        assert torch.equal(batch.tokens, batch.answers + 0.5)
        for got, k, i in zip(batch.inputs, copy, image, strict=True):
            expected = lessons.images[i].flip(2) if k == 1 else lessons.images[i]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        found = features.batch(indices, generator(seed))
        assert torch.equal(found.inputs, found.answers.expand(-1, 2) + 7)
        assert torch.equal(found.answers, batch.answers)
        seen.add(tuple(copy))
    assert {k for copy in seen for k in copy} == {0, 1, 2}
    assert len(seen) > 10
    assert len(features) == len(lessons) == 6


def test_the_teacher_is_asked_about_each_copy():
    """Its logits and its class token are those of the image as moved; told copy by copy."""
    teacher, told = random_model(SHAPE), []
    samples = Samples(IMAGES, torch.arange(6) % 3)
    lessons = distillation_data(teacher, samples, Jitter(1.0, 9.0, True), 5, 3, lambda *done: told.append(done))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for k in range(3):
        images = move_images(IMAGES, lessons.moves[k])
        torch.testing.assert_close(lessons.answers[k], teacher(images).detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(lessons.tokens[k], teacher.features(images).detach(), rtol=1e-4, atol=1e-4)
    small = random_model(SHAPE, 1)
    features = find_features([teacher, small], lessons).features
    assert torch.equal(features[:, :, :8], lessons.tokens)
    torch.testing.assert_close(features[0, :, 8:], small.features(IMAGES).detach(), rtol=1e-4, atol=1e-4)


# Splits


@pytest.mark.parametrize("sizes", [[3], [1, 2, 3], [20, 31, 3, 1], [100, 100]])
def test_a_split_holds_out_a_tenth_of_each_class(sizes):
    """To the nearest image; of a class of few, nothing, and of every class something is learned."""
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=generator())]
    lessons = counted(images=len(labels), labels=labels)
    learned, held = split_validation(lessons, seed=3)
    assert torch.bincount(held.labels, minlength=len(sizes)).tolist() == [round(n / 10) for n in sizes]
    numbers = torch.cat([learned.answers[0, :, 0], held.answers[0, :, 0]]).int()
    assert sorted(numbers.tolist()) == list(range(len(labels)))
    for part in (learned, held):
        chosen = part.answers[0, :, 0].int()
        assert torch.equal(part.labels, labels[chosen])
        assert torch.equal(part.images, lessons.images[chosen])
        assert torch.equal(part.moves, lessons.moves[:, chosen])
        assert torch.equal(part.tokens, lessons.tokens[:, chosen])


def test_a_large_share_leaves_one_of_each_class():
    """Even if all are asked for."""
    learned, held = split_validation(counted(images=6), share=1.0, seed=0)
    assert sorted(learned.labels.tolist()) == [0, 1, 2]
    assert sorted(held.labels.tolist()) == [0, 1, 2]


def test_a_split_is_the_seeds():
    """The same seed holds out the same images, another seed others."""
    lessons = counted(images=100, labels=torch.arange(100) % 2)
    first, again, other = (split_validation(lessons, seed=seed)[1].answers[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
