"""Embed widths that a model offers."""

import itertools
from dataclasses import replace

import pytest

from planner.network.vit import Shape
from planner.network.widths import embed_widths

DIGITS = Shape(8, 2, 1, 10, embed_dim=64, head_dim=16, num_heads=(4,) * 4, hidden_dim=(256,) * 4)


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        (64, (64, 48, 32, 24, 16)),
        (192, (192, 144, 96, 64, 32)),
        (768, (768, 576, 384, 256, 128)),
        (24, (24, 16)),
        (12, (12,)),
    ],
)
def test_widths_by_hand(full: int, expected: tuple[int, ...]) -> None:
    """The full width, then 3/4, 1/2, 1/3 and 1/6 of it to the nearest multiple of 8, none below a head's 16."""
    assert embed_widths(replace(DIGITS, embed_dim=full)) == expected


def test_no_width_is_narrower_than_a_head() -> None:
    """Heads of 64 dims leave a ViT-Tiny 64 at least, heads of 4 leave a width of 16 the least of 8."""
    assert embed_widths(replace(DIGITS, embed_dim=192, head_dim=64)) == (192, 144, 96, 64)
    assert embed_widths(replace(DIGITS, embed_dim=16, head_dim=4)) == (16, 8)


@pytest.mark.parametrize("full", range(1, 1100, 41))
def test_widths_fall_in_multiples_of_8(full: int) -> None:
    """Below the full width, widths are falling multiples of 8."""
    widths = embed_widths(replace(DIGITS, embed_dim=full))
    assert widths[0] == full
    assert all(a > b for a, b in itertools.pairwise(widths))
    assert all(e % 8 == 0 for e in widths[1:])
