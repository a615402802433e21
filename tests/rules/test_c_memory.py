"""Memory in the C engine: small cases by hand."""

from dataclasses import replace

import pytest

from planner.errors import InputError
from planner.rules.c_memory import CSizes, c_activations, c_arena_bytes, c_weight_bytes
from planner.schema import Precision
from planner.schema.architecture import Stem

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")

# Images of 4 x 4, patches of 2 x 2, a class token.
SMALL = CSizes(num_tokens=5, embed_dim=6, head_dim=3, stem=Stem((1,)), image_sides=(4, 4), patch_sides=(2, 2))


def test_attention_needs_most() -> None:
    """Tokens 5 x 6, normed 5 x 6, keys and values 2 x 5 x 3, four rows of queries and scores 4 x (5 + 3)."""
    assert c_arena_bytes(SMALL, [1, 0], [2, 0]) == 4 * (30 + 30 + 30 + 32)
    # A second head takes the memory of the first.
    assert c_arena_bytes(SMALL, [2, 2], [2, 0]) == 4 * (30 + 30 + 30 + 32)


def test_the_mlp_needs_most() -> None:
    """Tokens 5 x 6, then four rows of normed tokens and of the larger MLP's channels, 4 x (6 + 100)."""
    assert c_arena_bytes(SMALL, [1, 0], [100, 50]) == 4 * (30 + 4 * 106)


def test_a_gated_mlp_needs_two_numbers_a_channel() -> None:
    """Tokens 5 x 6, then four rows of normed tokens, and of gates and values, 4 x (6 + 2 x 100)."""
    assert c_arena_bytes(replace(SMALL, rows_per_channel=2), [1, 0], [100, 50]) == 4 * (30 + 4 * 206)


def test_the_embedding_needs_most() -> None:
    """Patches of 2 x 2 pixels of 30 channels: tokens 5 x 6, four patches 4 x 120; nothing for attention."""
    sizes = CSizes(5, 6, 3, Stem((30,)), (4, 4), (2, 2))
    assert c_arena_bytes(sizes, [0], [0]) == 4 * (30 + 4 * 120)


def test_a_stem_needs_its_maps() -> None:
    """Tokens 5 x 6; maps 4 x 4 x 10 and 2 x 2 x 20 of 8 x 8 pixels, and windows 4 x (9 x 10) between them."""
    sizes = CSizes(5, 6, 3, Stem((1, 10, 20)), (8, 8), (1, 1))
    assert c_arena_bytes(sizes, [0], [0]) == 4 * (30 + 160 + 80 + 360)


def test_a_stem_with_pooling_needs_a_map_before_pooling() -> None:
    """Maps 8 x 8 x 10, of which 4 x 4 x 10 are left, and 4 x 4 x 20, and windows 4 x (25 x 10) between them."""
    sizes = CSizes(5, 6, 3, Stem((1, 10, 20), kernel=5, stride=1, max_pool=True), (8, 8), (1, 1))
    assert c_arena_bytes(sizes, [0], [0]) == 4 * (30 + 160 + 320 + 1000)


def test_pooling_with_weights_needs_scores() -> None:
    """Scores of 90 tokens of one dim, which are more than four rows of a normed token and a channel."""
    sizes = CSizes(90, 1, 1, Stem((1,)), (9, 10), (1, 1), has_sequence_pooling=True)
    assert c_arena_bytes(sizes, [0], [1]) == 4 * (90 + 90)


def test_many_tokens_are_computed_in_sixteens() -> None:
    """From 64 tokens on there are sixteen rows of queries and scores."""
    sizes = CSizes(64, 6, 3, Stem((1,)), (8, 8), (1, 1))
    assert c_arena_bytes(sizes, [1], [0]) == 4 * (384 + 384 + 384 + 16 * 67)


def test_the_linear_form_is_the_arena() -> None:
    """What a solver adds up is what the generator writes, for any number of heads and channels."""
    fixed, least, per_channel = c_activations(SMALL)
    for channels in range(200):
        assert fixed + max(least, per_channel * channels) == c_arena_bytes(SMALL, [1], [channels])


def test_constants() -> None:
    """One block of one head and two channels; in int8, matrices have bytes, and a scale for each output."""
    matrices = 6 * 4 + 9 * 6 + 6 * 3 + 2 * 6 + 6 * 2
    tokens, norms, biases, image = 30, 3 * 12, 9 + 6 + 2 + 6, 2
    outputs = 6 + 9 + 6 + 2 + 6
    structs = 132 + 104
    floats = tokens + norms + biases + image
    assert c_weight_bytes(SMALL, [1], [2], "float32") == 4 * (matrices + floats) + structs
    assert c_weight_bytes(SMALL, [1], [2], "int8") == matrices + 4 * (outputs + floats) + structs
    # Each of two channels has a gate: six more weights, a bias, in int8 a scale.
    gated = replace(SMALL, rows_per_channel=2)
    assert c_weight_bytes(gated, [1], [2], "float32") - c_weight_bytes(SMALL, [1], [2], "float32") == 4 * 2 * 7
    assert c_weight_bytes(gated, [1], [2], "int8") - c_weight_bytes(SMALL, [1], [2], "int8") == 2 * 6 + 2 * 2 * 4
    # Norms of queries and keys of 3 dims, and the struct that names them; none where there is no attention.
    normed = replace(SMALL, qk_norm_size=12)
    for precision in PRECISIONS:
        assert c_weight_bytes(normed, [1], [2], precision) - c_weight_bytes(SMALL, [1], [2], precision) == 4 * 12 + 16
        assert c_weight_bytes(normed, [0], [2], precision) - c_weight_bytes(SMALL, [0], [2], precision) == 16
    # A layer that scores tokens, and the struct that names it.
    weighted = replace(SMALL, has_sequence_pooling=True)
    assert c_weight_bytes(weighted, [1], [2], "float32") - c_weight_bytes(SMALL, [1], [2], "float32") == 4 * 7 + 20
    assert c_weight_bytes(weighted, [1], [2], "int8") - c_weight_bytes(SMALL, [1], [2], "int8") == 6 + 4 * 2 + 20
    # A norm of the stream is there without an MLP too.
    between = replace(SMALL, norm_between_halves=True)
    assert c_weight_bytes(between, [1], [2], "float32") == c_weight_bytes(SMALL, [1], [2], "float32")
    assert c_weight_bytes(between, [1], [0], "float32") - c_weight_bytes(SMALL, [1], [0], "float32") == 4 * 12
    # A half that is missing has neither norm nor bias.
    without = 4 * (matrices - 24 + floats - 12 - 2 - 6) + structs
    assert c_weight_bytes(SMALL, [1], [0], "float32") == without


def test_what_is_refused() -> None:
    """Weights of float16, and an arena that 32 bits do not address."""
    with pytest.raises(InputError, match="got precision 'float16'"):
        c_weight_bytes(SMALL, [1], [2], "float16")
    huge = CSizes(50_000, 8_000, 64, Stem((3,)), (16, 16), (16, 16))
    with pytest.raises(InputError, match="an arena below 2147483648 bytes, got 3"):
        c_arena_bytes(huge, [1], [1])
