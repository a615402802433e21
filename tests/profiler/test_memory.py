"""The closed form of ONNX Runtime's peak memory is never below what a graph or a real process needs."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.memory.measure import params
from planner.library import load_profile
from planner.network.export import export_onnx
from planner.network.vit import Shape
from planner.profiler.memory import ARENA, CONVOLUTION_BYTES, ActivationMemory, activation_memory
from tests.helpers.plain_vit import random_model

DIGITS = Shape(8, 2, 1, 10, embed_dim=64, head_dim=16, num_heads=(4,) * 4, hidden_dim=(256,) * 4)
# Tokens and widths of ViT-Tiny, but two blocks.
TINY = Shape(224, 16, 3, 10, embed_dim=192, head_dim=64, num_heads=(3,) * 2, hidden_dim=(768,) * 2)
# N = 5 tokens.
SMALLEST = Shape(4, 2, 1, 3, embed_dim=8, head_dim=4, num_heads=(2,), hidden_dim=(16,))
# Scores are the most of a head: N = 65 tokens, hd = 4.
MANY_TOKENS = Shape(16, 2, 1, 3, embed_dim=16, head_dim=4, num_heads=(2,), hidden_dim=(16,))
# The stream is the most of all: E = 512, one head of 8.
WIDE = Shape(16, 2, 1, 3, embed_dim=512, head_dim=8, num_heads=(2,), hidden_dim=(16,))
# A stem with pooling, a norm of the stream, scores of the patches.
CCT = Shape(
    16,
    2,
    3,
    3,
    embed_dim=96,
    head_dim=16,
    num_heads=(2, 1),
    hidden_dim=(64, 8),
    class_token=False,
    pooling="sequence",
    norm_between_halves=True,
    stem_channels=(96,),
    stem_stride=1,
    stem_max_pool=True,
)


def predicted(line: ActivationMemory, shape: Shape) -> int:
    """Return the prediction of a profile, written out: the largest half, and the padding of all units."""
    blocks = list(zip(shape.num_heads, shape.hidden_dim, strict=True))
    padding = sum(line.head_padding * h + line.channel_padding * c for h, c in blocks)
    return line.fixed + max(max(line.per_head * h, line.per_channel * c) for h, c in blocks) + padding


def max_live_bytes(path: Path, image_bytes: int) -> int:
    """Return the peak of live bytes in a graph: each tensor lives from its operator to the last reader.

    A reshape makes no tensor of its own, a softmax writes where it reads; constants are weights.
    """
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    owner: dict[str, str] = {}
    size: dict[str, int] = {}
    for value in [*model.graph.value_info, *model.graph.output]:
        dims = [d.dim_value if d.HasField("dim_value") else 1 for d in value.type.tensor_type.shape.dim]
        size[value.name] = 4 * math.prod(dims)
    last: dict[str, int] = {}
    for i, node in enumerate(model.graph.node):
        for name in node.output:
            owner[name] = owner.get(node.input[0], name) if node.op_type in ("Reshape", "Softmax") else name
        for name in [*node.input, *node.output]:
            last[owner.get(name, name)] = i
    alive: dict[str, int] = {}
    peak = 0
    for i, node in enumerate(model.graph.node):
        alive |= {name: size[name] for name in node.output if owner[name] == name}
        peak = max(peak, sum(alive.values()))
        alive = {name: n for name, n in alive.items() if last[name] > i}
    return peak + image_bytes


def image_bytes(shape: Shape) -> int:
    """Return the bytes of one image."""
    return 4 * shape.in_channels * math.prod(shape.image_sides)


def pruned(whole: Shape, count: int, seed: int) -> list[Shape]:
    """Return random sub-models with at least one head; in every other one all blocks are alike."""
    rng = random.Random(seed)
    shapes: list[Shape] = []
    while len(shapes) < count:
        draws = [(rng.randint(0, whole.num_heads[0]), rng.randint(0, whole.hidden_dim[0])) for _ in whole.num_heads]
        heads, channels = zip(*(draws if len(shapes) % 2 else draws[:1] * whole.depth), strict=True)
        if any(heads):
            shapes.append(replace(whole, num_heads=heads, hidden_dim=channels))
    return shapes


def test_coefficients_by_hand() -> None:
    """N = 5, E = 8, hd = 4, 2 heads and 16 channels in one block; 4 bytes a number, twice for the arena.

    A head: 6 x 5 x 4 = 120 numbers around its bias, more than 3 x 5 x 4 + 5 x 5 = 85 around its scores.
    A channel: 2 x 5 = 10 numbers. Fixed: an image of 4 x 4; twice what lives at the first product, 2 x 40 + 60 of qkv
    less the head's 120, or 40 + 40 - 60, or 40 of the embedding; columns of fc1 and qkv padded by at most 15 x 8 each,
    240 numbers. The 8 columns of proj and fc2 are padded to 16, in a row for each of 4 head dims and for each channel.
    """
    line = activation_memory(SMALLEST)
    assert (line.per_head, line.per_channel) == (960, 80)
    assert line.fixed == 64 + 2 * 160 + 960
    assert (line.head_padding, line.channel_padding) == (4 * 8 * 4, 8 * 4)
    assert (ARENA, CONVOLUTION_BYTES) == (2, 65536)


def test_scores_count_where_there_are_many_tokens() -> None:
    """With 65 tokens and heads of 4: Q, K, V and scores are 3 x 65 x 4 + 65 x 65 = 5,005 numbers a head."""
    assert activation_memory(MANY_TOKENS).per_head == 2 * 4 * 5005


def test_a_wide_stream_counts_where_heads_are_narrow() -> None:
    """With E = 512 and heads of 8, the residual sum holds 3 x 65 x 512 numbers, less the one head counted.

    A head counts 3 x 65 x 8 + 65 x 65 = 5,785 numbers; 512 is a multiple of 16, so only fc1 and qkv are padded.
    """
    assert activation_memory(WIDE).fixed == 4 * (16 * 16 + 2 * (3 * 65 * 512 - 5785) + 2 * 15 * 512)


def test_each_further_block_is_padding() -> None:
    """Tensors of a block are freed before the next, so three more blocks add only their packing."""
    one, four = (
        activation_memory(SMALLEST),
        activation_memory(replace(SMALLEST, num_heads=(2,) * 4, hidden_dim=(16,) * 4)),
    )
    assert four.fixed - one.fixed == 3 * 960
    assert (four.per_head, four.per_channel) == (one.per_head, one.per_channel)


def test_heads_of_whole_columns_are_not_padded() -> None:
    """Heads of 16 dims fill the kernels' columns, so only fc1 is padded, by 15 x 64 numbers in each block."""
    narrower = activation_memory(replace(DIGITS, head_dim=15)).fixed - activation_memory(DIGITS).fixed
    assert narrower > 4 * 4 * 15 * 64 - 2 * 4 * 17 * 64


def test_prediction_by_hand() -> None:
    """100 + max(10 x 3, 2 x 20) + 4 heads x 5 + 26 channels = 186 bytes."""
    line = ActivationMemory(fixed=100, per_head=10, per_channel=2, head_padding=5, channel_padding=1)
    assert line.peak(heads=(3, 1), channels=(6, 20)) == 186


def padding_bytes(shape: Shape) -> int:
    """Return what packing adds to a network's matrices, one by one: columns in groups of 16."""
    E, total = shape.embed_dim, 0
    for h, c in zip(shape.num_heads, shape.hidden_dim, strict=True):
        inner = h * shape.head_dim
        for rows, columns in ((E, 3 * inner), (inner, E), (E, c), (c, E)):
            total += 4 * rows * (math.ceil(columns / 16) * 16 - columns)
    return total


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 96), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 256)), min_size=4, max_size=4))
def test_padding_is_that_of_the_kept_units(embed_dim: int, kept: list[tuple[int, int]]) -> None:
    """Beside what a network of one head and channel has, padding is exact but for at most 15 columns a block."""
    whole = replace(DIGITS, embed_dim=embed_dim)
    heads, channels = zip(*kept, strict=True)
    line = activation_memory(whole)
    tensors = replace(line, head_padding=0, channel_padding=0).peak(heads, channels) - 4 * 4 * 15 * embed_dim
    spare = line.peak(heads, channels) - tensors - padding_bytes(replace(whole, num_heads=heads, hidden_dim=channels))
    assert 0 <= spare <= 4 * 4 * 15 * embed_dim


@pytest.mark.parametrize("channels", [8, 32, 256])
def test_a_wider_sub_model_takes_more(channels: int) -> None:
    """With the same heads and channels, weights and activations together grow with the embed dim."""
    lines = [(e, activation_memory(replace(DIGITS, embed_dim=e))) for e in range(8, 65, 8)]
    sizes = [
        4 * params(replace(DIGITS, embed_dim=e, hidden_dim=(channels,) * 4)) + line.peak((4,) * 4, (channels,) * 4)
        for e, line in lines
    ]
    assert sizes == sorted(sizes)
    # Of pruned sub-models too, which hold little beside their tensors.
    assert [line.fixed for _, line in lines] == sorted(line.fixed for _, line in lines)


def test_the_shipped_profile_is_counted_by_this_code() -> None:
    """Activations and padding of each width of the digits ViT."""
    for width in load_profile("digits-vit").widths:
        line = activation_memory(replace(DIGITS, embed_dim=width.embed_dim))
        assert (
            width.fixed_activation_bytes,
            width.head_activation_bytes,
            width.channel_activation_bytes,
            width.head_padding_bytes,
            width.channel_padding_bytes,
        ) == (line.fixed, line.per_head, line.per_channel, line.head_padding, line.channel_padding)


@pytest.mark.parametrize("embed_dim", [1024, 768, 680, 344, 168])
def test_a_large_model_has_whole_bytes(embed_dim: int) -> None:
    """For a ViT-Large at any width, coefficients are whole bytes, and the fixed part falls with the width."""
    large = Shape(224, 16, 3, 1000, embed_dim, 64, (16,) * 24, (4096,) * 24)
    line = activation_memory(large)
    assert all(isinstance(n, int) and n > 0 for n in (line.fixed, line.per_head, line.per_channel))
    assert line.fixed < 3 * 197 * embed_dim * 4 * 4 + 24 * 2**20


@pytest.mark.parametrize(
    "shape",
    [
        *pruned(TINY, 2, seed=1),
        *pruned(replace(TINY, embed_dim=48), 1, seed=2),
        replace(WIDE, num_heads=(1,), hidden_dim=(0,)),
        replace(MANY_TOKENS, distilled=True),
        replace(TINY, num_heads=(1, 0), gated_mlp=True, activation="silu"),
        replace(TINY, hidden_dim=(0, 8), qk_norm="layer_norm"),
        replace(MANY_TOKENS, qk_norm="rms_norm", gated_mlp=True, activation="sigmoid"),
        CCT,
        replace(CCT, stem_channels=(24, 96), patch_size=4, hidden_dim=(0, 8)),
        replace(CCT, image_size=64, stem_channels=(24, 96), stem_kernel=7, stem_stride=2, patch_size=16),
    ],
    ids=str,
)
def test_never_below_the_live_tensors(tmp_path: Path, shape: Shape) -> None:
    """Without the margins for arena, session and padding, no operator of the exported graph needs more."""
    pytest.importorskip("onnxscript")
    export_onnx(random_model(shape), tmp_path / "model.onnx")
    live_bytes = max_live_bytes(tmp_path / "model.onnx", image_bytes(shape))
    whole = replace(shape, num_heads=(max(shape.num_heads),) * shape.depth)
    line = activation_memory(whole)
    need = predicted(line, shape)
    assert live_bytes <= need
    assert live_bytes - image_bytes(shape) <= (need - image_bytes(shape)) / ARENA + CONVOLUTION_BYTES


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_never_below_a_real_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned sub-model in ONNX Runtime, in its own process, takes at most the prediction and at least two thirds.

    The benchmark takes the median of more processes, of more and larger sub-models.
    """
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from benchmarks.memory import measure as benchmark

    monkeypatch.setattr(benchmark, "PROCESSES", 1)
    whole = replace(TINY, embed_dim=96)
    shape = replace(whole, num_heads=(3, 1), hidden_dim=(104, 600))
    found = benchmark.measure_row("", whole, shape, benchmark.overhead_bytes(tmp_path, whole.depth), tmp_path)
    assert 1 <= found.ratio <= 1.5, found
