"""Tokens that fits look at: every pooled token, and of the patches a fair sample."""

import dataclasses

import pytest
import torch

from planner.network.fitted_tokens import FittedTokens, take_tokens
from planner.network.vit import Shape
from tests.helpers.plain_vit import random_images, random_model

# 36 patches behind a class token and two registers.
SHAPE = Shape(
    image_size=24,
    patch_size=4,
    in_channels=1,
    num_classes=3,
    embed_dim=8,
    head_dim=4,
    num_heads=(2,),
    hidden_dim=(8,),
    num_registers=2,
)
SMALL = dataclasses.replace(SHAPE, image_size=12)


MANY = 10**6


def test_each_image_has_its_prefix_tokens_and_sixteen_patches() -> None:
    """Of many images: the three first positions, then sixteen others, none twice."""
    positions = FittedTokens(SHAPE, MANY, 4.0).of_images(torch.arange(50))
    assert positions.shape == (50, 3 + 16)
    assert (positions[:, :3] == torch.arange(3)).all()
    patches = positions[:, 3:]
    assert patches.min() == 3
    assert patches.max() == 38
    assert all(len(row.unique()) == 16 for row in patches)


def test_all_patches_take_their_turn() -> None:
    """Nine images see each of the 36 patches four times: 144 places."""
    patches = FittedTokens(SHAPE, MANY, 4.0).of_images(torch.arange(9))[:, 3:]
    assert torch.bincount(patches.flatten() - 3).tolist() == [4] * 36


def test_weights_are_those_of_all_tokens() -> None:
    """Sixteen patches weigh as much as 36, a class token what it is given; of a mean, every token counts alike."""
    weights = FittedTokens(SHAPE, MANY, 4.0).weights
    assert weights[:3].tolist() == [4, 1, 1]
    assert weights[3:].sum() == 36
    of_mean = dataclasses.replace(SHAPE, pooling="mean", class_token=False)
    assert FittedTokens(of_mean, MANY, 4.0).weights[:2].tolist() == [1, 1]


@pytest.mark.parametrize(("num_images", "expected"), [(1024, 32), (1638, 21), (1400, 24), (910, 36), (1, 36)])
def test_of_fewer_images_more_patches_are_looked_at(num_images: int, expected: int) -> None:
    """32,768 of all images together, rounded up; an image has 36."""
    tokens = FittedTokens(SHAPE, num_images, 4.0)
    assert tokens.of_images(torch.arange(num_images)).shape == (num_images, 3 + expected)
    assert tokens.weights[3:].sum() == pytest.approx(36)


def test_few_patches_are_all_looked_at() -> None:
    """Of nine patches each counts once, in every image."""
    tokens = FittedTokens(SMALL, MANY, 4.0)
    assert tokens.weights.tolist() == [4, 1, 1, *[1] * 9]
    assert (tokens.of_images(torch.arange(5)).sort(1).values == torch.arange(12)).all()


@pytest.mark.parametrize("first", [0, 7])
def test_tokens_are_taken_from_their_own_image(first: int) -> None:
    """Token for token what the stream holds there."""
    stream = random_model(SHAPE).embed(random_images(SHAPE, 4)).detach()
    positions = FittedTokens(SHAPE, MANY, 1.0).of_images(torch.arange(first, first + 4))
    taken = take_tokens(stream, positions)
    for b in range(4):
        for t in range(19):
            assert torch.equal(taken[b, t], stream[b, positions[b, t]])
