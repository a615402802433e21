"""Surgery equals masking: a cut network answers as the whole one does with the removed units set to zero.

The masking is `plain_vit`'s, in float64; the cut is widened to float64 too, so what is left of a
difference is rounding of the last digits.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def some(size, least=0):
    """Draw distinct indices below a size, in any order."""
    return st.lists(st.integers(0, size - 1), unique=True, min_size=least, max_size=size) if size else st.just([])


def some_of_each(sizes, least=0):
    """Draw indices for each block."""
    return st.tuples(*(some(size, least) for size in sizes)).map(list)


heads_strategy = some_of_each(SHAPE.num_heads)
channels_strategy = some_of_each(SHAPE.hidden_dim)
dims_strategy = some(SHAPE.embed_dim, least=1)


def mask(size, kept):
    """Return 1 where an index is kept and 0 elsewhere, (size,)."""
    return torch.tensor([float(i in kept) for i in range(size)], dtype=torch.float64)


def assert_equals_masking(heads, channels, dims=None):
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
def test_cutting_heads_equals_masking_them(heads):
    """Any set of heads may go."""
    assert_equals_masking(heads, ALL_CHANNELS)


@thorough
@given(channels_strategy)
def test_cutting_channels_equals_masking_them(channels):
    """Any set of hidden channels may go."""
    assert_equals_masking(ALL_HEADS, channels)


@thorough
@given(dims_strategy)
def test_cutting_embed_dims_equals_masking_the_residual_stream(dims):
    """Any set of embed dims but all may go; norms then see what is left."""
    assert_equals_masking(ALL_HEADS, ALL_CHANNELS, dims)


@pytest.mark.parametrize("block", range(SHAPE.depth))
@pytest.mark.parametrize(("attention", "mlp"), [(False, True), (True, False), (False, False)])
def test_an_emptied_half_adds_nothing(block, attention, mlp):
    """A block that loses its attention, its MLP or both adds nothing there, not even a bias."""
    heads = [[] if l == block and not attention else kept for l, kept in enumerate(ALL_HEADS)]
    channels = [[] if l == block and not mlp else kept for l, kept in enumerate(ALL_CHANNELS)]
    assert_equals_masking(heads, channels)


def test_a_network_without_any_block_equals_masking():
    """With every half emptied, what is left is the embedding, the last norm and the head layer."""
    assert_equals_masking([[]] * SHAPE.depth, [[]] * SHAPE.depth)


@thorough
@given(heads_strategy, channels_strategy, dims_strategy)
def test_cutting_everything_at_once_equals_masking(heads, channels, dims):
    """Heads, channels and embed dims may go together."""
    assert_equals_masking(heads, channels, dims)


def test_float32_answers_agree_to_five_digits():
    """As it is used, in float32, a cut network agrees with the masked one to 1e-5 of the output's scale."""
    heads, channels, dims = [[0, 2], [], [1]], [[1, 3, 4], [6, 0], []], [7, 0, 2, 5]
    masks = [
        [mask(*p) for p in zip(sizes, kept, strict=True)]
        for sizes, kept in ((SHAPE.num_heads, heads), (SHAPE.hidden_dim, channels))
    ]
    expected = plain_logits(MODEL, IMAGES, *masks, mask(SHAPE.embed_dim, dims))
    got = cut(MODEL, heads, channels, dims)(IMAGES)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@settings(max_examples=25, deadline=None)
@given(some_of_each(SHAPE.num_heads, least=1), some_of_each(SHAPE.hidden_dim, least=1))
def test_cutting_a_unit_equals_closing_its_gate(heads, channels):
    """As long as a half keeps a unit, the network's own gates say the same as surgery."""
    gates = [
        (mask(h, kept).expand(len(IMAGES), -1), mask(c, left).expand(len(IMAGES), -1))
        for h, kept, c, left in zip(SHAPE.num_heads, heads, SHAPE.hidden_dim, channels, strict=True)
    ]
    gated = random_model(SHAPE).double()(IMAGES.double(), gates)
    torch.testing.assert_close(cut(MODEL, heads, channels).double()(IMAGES.double()), gated, rtol=1e-9, atol=1e-10)


@thorough
@given(heads_strategy, channels_strategy, dims_strategy)
def test_the_tensors_really_are_smaller(heads, channels, dims):
    """A cut network holds as many numbers as the closed form says, and knows its new shape."""
    small = cut(MODEL, heads, channels, dims)
    assert small.shape.num_heads == tuple(map(len, heads))
    assert small.shape.hidden_dim == tuple(map(len, channels))
    assert small.shape.embed_dim == len(dims)
    assert sum(p.numel() for p in small.parameters()) == counts.exact(small.shape).params


@settings(max_examples=20, deadline=None)
@given(heads_strategy, channels_strategy, dims_strategy)
def test_the_source_model_is_left_as_it_is(heads, channels, dims):
    """Overwriting all of a cut network's weights changes nothing in the model it came from."""
    before = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
    small = cut(MODEL, heads, channels, dims)
    with torch.no_grad():
        for p in small.parameters():
            p.zero_()
    assert MODEL.shape == SHAPE
    after = MODEL.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_cutting_nothing_gives_an_identical_network():
    """With every unit kept, shape, names and numbers are the source's."""
    same = cut(MODEL, ALL_HEADS, ALL_CHANNELS)
    assert same.shape == SHAPE
    assert list(same.state_dict()) == list(MODEL.state_dict())
    assert all(torch.equal(same.state_dict()[name], tensor) for name, tensor in MODEL.state_dict().items())


@settings(max_examples=25, deadline=None)
@given(heads_strategy, channels_strategy, dims_strategy, st.data())
def test_a_cut_of_a_cut_equals_one_cut(heads, channels, dims, data):
    """Cutting twice gives what cutting once to the composed indices gives, emptied halves included."""
    once = cut(MODEL, heads, channels, dims)
    again = [data.draw(some_of_each(sizes)) for sizes in (once.shape.num_heads, once.shape.hidden_dim)]
    dims_again = data.draw(some(once.shape.embed_dim, least=1))
    twice = cut(once, *again, dims_again)

    def composed(first, second):
        return [[sorted(kept)[i] for i in then] for kept, then in zip(first, second, strict=True)]

    direct = cut(MODEL, composed(heads, again[0]), composed(channels, again[1]), composed([dims], [dims_again])[0])
    assert twice.shape == direct.shape
    assert list(twice.state_dict()) == list(direct.state_dict())
    assert all(torch.equal(twice.state_dict()[name], tensor) for name, tensor in direct.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_the_sources(training):
    """A cut of a network that is being trained is in training mode, and the other way round."""
    model = random_model(SHAPE).train(training)
    assert cut(model, ALL_HEADS, ALL_CHANNELS).training is training


def test_the_precision_is_the_sources():
    """A cut of a float64 network is a float64 network with the same numbers, not rounded ones."""
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
def test_bad_indices_are_refused(heads, channels, dims, message):
    """An index out of range or named twice, or a missing block, is an error that names it."""
    with pytest.raises(ValueError, match=message):
        cut(MODEL, heads, channels, dims)


def test_what_is_gone_cannot_be_kept():
    """A half that was emptied has no index left that could be kept."""
    emptied = cut(MODEL, [[], [0], [0]], ALL_CHANNELS)
    with pytest.raises(ValueError, match=r"heads\[0\]: must be distinct and within"):
        cut(emptied, [[0], [0], [0]], ALL_CHANNELS)


def test_masking_with_ones_is_the_network_itself():
    """The oracle is right where nothing is masked: it agrees with the network's own forward pass."""
    whole = random_model(SHAPE).double()
    torch.testing.assert_close(whole(IMAGES.double()), plain_logits(MODEL, IMAGES, *ones(SHAPE)), rtol=1e-9, atol=1e-10)
