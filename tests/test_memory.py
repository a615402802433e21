"""The line that stands for peak activations: never under what is measured, and not far over."""

import random
from dataclasses import replace

import pytest

from planner.network.vit import Shape
from planner.profiler.memory import Activations, measure, peak_bytes

DIGITS = Shape(8, 2, 1, 10, embed_dim=64, head_dim=16, num_heads=(4,) * 4, hidden_dim=(256,) * 4)
TINY = Shape(224, 16, 3, 10, embed_dim=192, head_dim=64, num_heads=(3,) * 2, hidden_dim=(768,) * 2)
# The least that can go wrong: N = 5 tokens, E = 8, no units.
EMPTY = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(0,), hidden_dim=(0,))

WHOLES = {
    "digits-vit": DIGITS,
    "digits-vit, 40 wide": replace(DIGITS, embed_dim=40),
    "vit-tiny": TINY,
    "vit-tiny, 144 wide": replace(TINY, embed_dim=144),
    "wide and few channels": Shape(12, 4, 3, 10, 100, 16, (1,) * 2, (64,) * 2),
    "channels that eight does not divide": Shape(8, 4, 3, 10, 64, 4, (4,) * 2, (100,) * 2),
}


def random_pruned(whole, count, seed):
    """Return pruned shapes of a model: in every other one all blocks are alike, emptied halves included."""
    rng = random.Random(seed)
    shapes = []
    for i in range(count):
        draws = [(rng.randint(0, whole.num_heads[0]), rng.randint(0, whole.hidden_dim[0])) for _ in whole.num_heads]
        heads, channels = zip(*(draws if i % 2 else draws[:1] * whole.depth), strict=True)
        shapes.append(replace(whole, num_heads=heads, hidden_dim=channels))
    return shapes


def predicted(line, shape):
    """Return fixed + max over blocks of max(per head h, per channel c), written out as the profile has it."""
    blocks = zip(shape.num_heads, shape.hidden_dim, strict=True)
    return line.fixed + max(max(line.per_head * h, line.per_channel * c) for h, c in blocks)


@pytest.mark.parametrize("name", WHOLES)
def test_the_line_is_never_under_the_peak(name):
    """On 20 random pruned shapes, blocks equal and unequal, the profile promises no less than is needed."""
    whole = WHOLES[name]
    line = measure(whole)
    under = {
        (shape.num_heads, shape.hidden_dim): (predicted(line, shape), peak_bytes(shape))
        for shape in random_pruned(whole, 20, seed=0)
        if predicted(line, shape) < peak_bytes(shape)
    }
    assert under == {}


@pytest.mark.parametrize("name", WHOLES)
def test_the_line_is_not_under_at_its_corner(name):
    """Where a block's heads and its channels are predicted to need the same, the line is not under either."""
    whole = WHOLES[name]
    line = measure(whole)
    for h in range(1, whole.num_heads[0] + 1):
        corner = line.per_head * h // line.per_channel
        for c in {max(1, min(corner + i, whole.hidden_dim[0])) for i in (0, 1)}:
            shape = replace(whole, num_heads=(h,) * whole.depth, hidden_dim=(c,) * whole.depth)
            assert predicted(line, shape) >= peak_bytes(shape), (h, c)


@pytest.mark.parametrize("name", ["digits-vit", "digits-vit, 40 wide", "vit-tiny", "vit-tiny, 144 wide"])
def test_the_line_is_close_to_the_peak(name):
    """On 20 random pruned shapes it promises at most 30 % more than is needed, and mostly less than 15 %."""
    whole = WHOLES[name]
    line = measure(whole)
    over = sorted(predicted(line, shape) / peak_bytes(shape) - 1 for shape in random_pruned(whole, 20, seed=0))
    assert over[-1] <= 0.30
    assert over[len(over) // 2] <= 0.15


def test_the_peak_is_that_of_the_largest_block():
    """A network needs as much as the hungriest of its blocks would in a network of blocks like it."""
    for mixed in random_pruned(DIGITS, 10, seed=2):
        blocks = zip(mixed.num_heads, mixed.hidden_dim, strict=True)
        alike = [replace(DIGITS, num_heads=(h,) * 4, hidden_dim=(c,) * 4) for h, c in blocks]
        assert peak_bytes(mixed) <= max(map(peak_bytes, alike))


def test_peak_without_units_by_hand():
    """Without units the embedding is the peak: image, patches, patches with class token, and their sum with positions.

    4 x 4 + 4 x 8 + 5 x 8 + 5 x 8 = 128 numbers of 4 bytes.
    """
    assert peak_bytes(EMPTY) == 512


def test_peak_of_channels_by_hand():
    """With 100 channels the GELU is the peak: image, stream, normed stream, and channels before and after it.

    4 x 4 + 5 x 8 + 5 x 8 + 5 x 100 + 5 x 100 = 1,096 numbers of 4 bytes.
    """
    assert peak_bytes(replace(EMPTY, hidden_dim=(100,))) == 4384


def test_peak_of_heads_is_at_least_qkv_and_the_outputs():
    """With 10 heads of 4, at least image, stream, Q, K and V and the heads' outputs are alive together.

    4 x 4 + 5 x 8 + 3 x 5 x 40 + 5 x 40 = 856 numbers of 4 bytes.
    """
    assert peak_bytes(replace(EMPTY, num_heads=(10,))) >= 3424


def test_depth_does_not_matter():
    """Blocks run one after the other: more of the same need no more activations."""
    two, six = (replace(DIGITS, num_heads=(3,) * depth, hidden_dim=(100,) * depth) for depth in (2, 6))
    assert peak_bytes(two) == peak_bytes(six)


@pytest.mark.parametrize("field", ["num_heads", "hidden_dim"])
def test_more_units_never_need_less(field):
    """One head or one channel more in each block needs as much or more."""
    peaks = [peak_bytes(replace(DIGITS, **{field: (size,) * 4})) for size in range(5)]
    assert peaks == sorted(peaks)


def test_prediction_by_hand():
    """100 + max(10 x 3, 2 x 20) = 140 bytes."""
    assert Activations(fixed=100, per_head=10, per_channel=2).peak(heads=3, channels=20) == 140
