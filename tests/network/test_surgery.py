"""Surgery equals masking: a cut network computes what the whole one does with the removed units set to zero.

The masking is `plain_vit`'s, in float64; the cut is widened to float64 too, so what is left of a
difference is rounding of the last digits.
"""

from collections.abc import Iterable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from planner.network import counts
from planner.network.surgery import cut
from planner.network.vit import Shape
from tests.helpers.plain_vit import ones, plain_features, plain_logits, random_images, random_model

# No two blocks are alike, so an index taken from the wrong block shows.
SHAPE = Shape(
    image_size=6,
    patch_size=3,
    in_channels=2,
    num_classes=3,
    embed_dim=8,
    head_dim=4,
    num_heads=(3, 1, 2),
    hidden_dim=(5, 7, 2),
)
MODEL = random_model(SHAPE)
IMAGES = random_images(SHAPE, 3)
ALL_HEADS = [list(range(h)) for h in SHAPE.num_heads]
ALL_CHANNELS = [list(range(c)) for c in SHAPE.hidden_dim]

thorough = settings(max_examples=40, deadline=None)


def some(size: int, min_size: int = 0) -> st.SearchStrategy[list[int]]:
    """Draw distinct indices below a size, in any order."""
    return st.lists(st.integers(0, size - 1), unique=True, min_size=min_size, max_size=size) if size else st.just([])


def some_of_each(sizes: Sequence[int], min_size: int = 0) -> st.SearchStrategy[list[list[int]]]:
    """Draw indices for each block."""
    return st.tuples(*(some(size, min_size) for size in sizes)).map(list)


heads_strategy = some_of_each(SHAPE.num_heads)
channels_strategy = some_of_each(SHAPE.hidden_dim)
dims_strategy = some(SHAPE.embed_dim, min_size=1)


def mask(size: int, kept: Iterable[int]) -> Tensor:
    """Return 1 where an index is kept and 0 elsewhere, (size,)."""
    return torch.tensor([float(i in kept) for i in range(size)], dtype=torch.float64)


def assert_equals_masking(heads: list[list[int]], channels: list[list[int]], dims: list[int] | None = None) -> None:
    """Compare the logits and the features of the cut network with those of the masked one."""
    small = cut(MODEL, heads, channels, dims).double()
    head_masks = [mask(*pair) for pair in zip(SHAPE.num_heads, heads, strict=True)]
    channel_masks = [mask(*pair) for pair in zip(SHAPE.hidden_dim, channels, strict=True)]
    kept = range(SHAPE.embed_dim) if dims is None else sorted(dims)
    masks = head_masks, channel_masks, mask(SHAPE.embed_dim, kept)
    with torch.no_grad():
        features, logits = small.features(IMAGES.double()), small(IMAGES.double())
    torch.testing.assert_close(features, plain_features(MODEL, IMAGES, *masks)[:, list(kept)], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(logits, plain_logits(MODEL, IMAGES, *masks).detach(), rtol=1e-9, atol=1e-10)


@thorough
@given(heads_strategy)
def test_cutting_heads_equals_masking_them(heads: list[list[int]]) -> None:
    """Any set of heads may be removed."""
    assert_equals_masking(heads, ALL_CHANNELS)


@thorough
@given(channels_strategy)
def test_cutting_channels_equals_masking_them(channels: list[list[int]]) -> None:
    """Any set of hidden channels may be removed."""
    assert_equals_masking(ALL_HEADS, channels)


@thorough
@given(dims_strategy)
def test_cutting_embed_dims_equals_masking_the_residual_stream(dims: list[int]) -> None:
    """Any set of embed dims but all may be removed; norms then use the kept ones alone."""
    assert_equals_masking(ALL_HEADS, ALL_CHANNELS, dims)


@pytest.mark.parametrize("block", range(SHAPE.depth))
@pytest.mark.parametrize(("attention", "mlp"), [(False, True), (True, False), (False, False)])
def test_an_emptied_half_adds_nothing(block: int, attention: bool, mlp: bool) -> None:
    """A block that loses its attention, its MLP or both adds nothing there, not even a bias."""
    heads = [[] if l == block and not attention else kept for l, kept in enumerate(ALL_HEADS)]
    channels = [[] if l == block and not mlp else kept for l, kept in enumerate(ALL_CHANNELS)]
    assert_equals_masking(heads, channels)


def test_a_network_without_any_block_equals_masking() -> None:
    """With every half emptied, the embedding, the last norm and the head layer are left."""
    assert_equals_masking([[]] * SHAPE.depth, [[]] * SHAPE.depth)


@thorough
@given(heads_strategy, channels_strategy, dims_strategy)
def test_cutting_everything_at_once_equals_masking(
    heads: list[list[int]], channels: list[list[int]], dims: list[int]
) -> None:
    """Heads, channels and embed dims may be removed together."""
    assert_equals_masking(heads, channels, dims)


def test_float32_logits_agree_to_five_digits() -> None:
    """In float32, a cut network agrees with the masked one to 1e-5 of the logits' scale."""
    heads, channels, dims = [[0, 2], [], [1]], [[1, 3, 4], [6, 0], []], [7, 0, 2, 5]
    head_masks, channel_masks = (
        [mask(*p) for p in zip(sizes, kept, strict=True)]
        for sizes, kept in ((SHAPE.num_heads, heads), (SHAPE.hidden_dim, channels))
    )
    expected = plain_logits(MODEL, IMAGES, head_masks, channel_masks, mask(SHAPE.embed_dim, dims))
    got = cut(MODEL, heads, channels, dims)(IMAGES)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@settings(max_examples=25, deadline=None)
@given(some_of_each(SHAPE.num_heads, min_size=1), some_of_each(SHAPE.hidden_dim, min_size=1))
def test_cutting_a_unit_equals_closing_its_gate(heads: list[list[int]], channels: list[list[int]]) -> None:
    """As long as a half keeps a unit, the network's own gates give the same as surgery."""
    gates = [
        (mask(h, kept).expand(len(IMAGES), -1), mask(c, left).expand(len(IMAGES), -1))
        for h, kept, c, left in zip(SHAPE.num_heads, heads, SHAPE.hidden_dim, channels, strict=True)
    ]
    gated = random_model(SHAPE).double()(IMAGES.double(), gates)
    torch.testing.assert_close(cut(MODEL, heads, channels).double()(IMAGES.double()), gated, rtol=1e-9, atol=1e-10)


@thorough
@given(heads_strategy, channels_strategy, dims_strategy)
def test_the_tensors_really_are_smaller(heads: list[list[int]], channels: list[list[int]], dims: list[int]) -> None:
    """A cut network has as many parameters as the closed form says, and knows its new shape."""
    small = cut(MODEL, heads, channels, dims)
    assert small.shape.num_heads == tuple(map(len, heads))
    assert small.shape.hidden_dim == tuple(map(len, channels))
    assert small.shape.embed_dim == len(dims)
    assert sum(p.numel() for p in small.parameters()) == counts.exact(small.shape).params


@settings(max_examples=20, deadline=None)
@given(heads_strategy, channels_strategy, dims_strategy)
def test_the_source_model_is_left_as_it_is(heads: list[list[int]], channels: list[list[int]], dims: list[int]) -> None:
    """Overwriting all weights of a cut network changes nothing in its source."""
    before = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
    small = cut(MODEL, heads, channels, dims)
    with torch.no_grad():
        for p in small.parameters():
            p.zero_()
    assert MODEL.shape == SHAPE
    after = MODEL.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_cutting_nothing_gives_an_identical_network() -> None:
    """With every unit kept, shape, names and weights are the source's."""
    same = cut(MODEL, ALL_HEADS, ALL_CHANNELS)
    assert same.shape == SHAPE
    assert list(same.state_dict()) == list(MODEL.state_dict())
    assert all(torch.equal(same.state_dict()[name], tensor) for name, tensor in MODEL.state_dict().items())


@settings(max_examples=25, deadline=None)
@given(heads_strategy, channels_strategy, dims_strategy, st.data())
def test_a_cut_of_a_cut_equals_one_cut(
    heads: list[list[int]], channels: list[list[int]], dims: list[int], data: st.DataObject
) -> None:
    """Two cuts give what one cut to the composed indices gives, emptied halves included."""
    once = cut(MODEL, heads, channels, dims)
    heads_again = data.draw(some_of_each(once.shape.num_heads))
    channels_again = data.draw(some_of_each(once.shape.hidden_dim))
    dims_again = data.draw(some(once.shape.embed_dim, min_size=1))
    twice = cut(once, heads_again, channels_again, dims_again)

    def composed(first: list[list[int]], second: list[list[int]]) -> list[list[int]]:
        return [[sorted(kept)[i] for i in then] for kept, then in zip(first, second, strict=True)]

    direct = cut(
        MODEL,
        composed(heads, heads_again),
        composed(channels, channels_again),
        composed([dims], [dims_again])[0],
    )
    assert twice.shape == direct.shape
    assert list(twice.state_dict()) == list(direct.state_dict())
    assert all(torch.equal(twice.state_dict()[name], tensor) for name, tensor in direct.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_the_sources(training: bool) -> None:
    """A cut of a network in training mode is in training mode, and likewise for eval mode."""
    model = random_model(SHAPE).train(training)
    assert cut(model, ALL_HEADS, ALL_CHANNELS).training is training


def test_the_precision_is_the_sources() -> None:
    """A cut of a float64 network has the same float64 weights, not rounded ones."""
    model = random_model(SHAPE).double()
    with torch.no_grad():
        model.head.weight += 1e-12
    small = cut(model, ALL_HEADS, ALL_CHANNELS)
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    assert torch.equal(small.head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("heads", "channels", "dims", "message"),
    [
        ([[3], [], []], ALL_CHANNELS, None, r"heads\[0\]: must be distinct and within 0\.\.2, got \[3\]"),
        ([[0], [-1], []], ALL_CHANNELS, None, r"heads\[1\]: must be distinct and within 0\.\.0, got \[-1\]"),
        ([[0], [0], [1, 1]], ALL_CHANNELS, None, r"heads\[2\]: must be distinct and within 0\.\.1, got \[1, 1\]"),
        ([[0], [0]], ALL_CHANNELS, None, r"heads: must have 3 blocks, got 2"),
        (ALL_HEADS, [[0], [7], [0]], None, r"channels\[1\]: must be distinct and within 0\.\.6, got \[7\]"),
        (ALL_HEADS, [[4, 4], [], []], None, r"channels\[0\]: must be distinct and within 0\.\.4, got \[4, 4\]"),
        (ALL_HEADS, [[]] * 4, None, r"channels: must have 3 blocks, got 4"),
        (ALL_HEADS, ALL_CHANNELS, [8], r"embed_dims\[0\]: must be distinct and within 0\.\.7, got \[8\]"),
        (ALL_HEADS, ALL_CHANNELS, [2, 2], r"embed_dims\[0\]: must be distinct and within 0\.\.7, got \[2, 2\]"),
        (ALL_HEADS, ALL_CHANNELS, [], r"embed_dims: at least one must be kept, got none"),
    ],
)
def test_bad_indices_are_refused(
    heads: list[list[int]], channels: list[list[int]], dims: list[int] | None, message: str
) -> None:
    """An index that is out of range or repeated, and a missing block, are errors that name it."""
    with pytest.raises(ValueError, match=message):
        cut(MODEL, heads, channels, dims)


def test_removed_units_cannot_be_kept() -> None:
    """An emptied half has no index that could be kept."""
    emptied = cut(MODEL, [[], [0], [0]], ALL_CHANNELS)
    with pytest.raises(ValueError, match=r"heads\[0\]: must be distinct and within"):
        cut(emptied, [[0], [0], [0]], ALL_CHANNELS)


def test_masking_with_ones_is_the_network_itself() -> None:
    """With nothing masked, the oracle agrees with the network's own forward pass."""
    whole = random_model(SHAPE).double()
    torch.testing.assert_close(whole(IMAGES.double()), plain_logits(MODEL, IMAGES, *ones(SHAPE)), rtol=1e-9, atol=1e-10)
