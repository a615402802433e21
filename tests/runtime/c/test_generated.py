"""Generated C against torch: features, and that no access leaves its buffer, under sanitizers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.network.vit import Shape
from planner.rules.c_memory import c_arena_bytes, c_weight_bytes
from planner.runtime.c.generate import c_sizes, model_files
from tests.helpers.c_models import (
    SANITIZERS,
    STRICT,
    Answer,
    Case,
    assert_equal_features,
    build,
    c_compiler,
    make_case,
    random_case,
    run,
)

CCT: dict[str, Any] = {
    "class_token": False,
    "pooling": "sequence",
    "norm_between_halves": True,
    "stem_stride": 1,
    "stem_max_pool": True,
}
# What random sizes hardly ever meet.
EDGES = [
    # One token, which looks at itself.
    make_case(Shape(2, 2, 1, 2, 5, 3, (2,), (4,), class_token=False, pooling="mean")),
    # Neither heads nor channels.
    make_case(Shape(4, 2, 1, 2, 6, 4, (0, 0), (0, 0))),
    # More than 64 tokens, of which more are computed together, and no whole number of tiles.
    make_case(Shape((18, 16), 2, 1, 2, 16, 8, (1, 2), (24, 8), num_registers=2)),
    # Patches and hidden channels beyond one chunk of inputs, outputs beyond one panel.
    make_case(Shape(36, 18, 1, 2, 67, 33, (2,), (300,))),
    make_case(Shape(36, 18, 1, 2, 67, 33, (2,), (300,)), "int8"),
    # Gates beside values, norms of queries and keys, and blocks that lack either half.
    make_case(Shape(4, 2, 1, 2, 6, 4, (2, 0), (7, 3), gated_mlp=True, activation="silu", qk_norm="layer_norm")),
    make_case(Shape(4, 2, 1, 2, 6, 4, (1, 3), (0, 40), gated_mlp=True, activation="gelu", qk_norm="rms_norm"), "int8"),
    # Maps at either end of the arena in turns.
    make_case(Shape(16, 8, 3, 2, 8, 4, (1,), (9,), stem_channels=(4, 7, 5)), dtype="float32"),
    # The same with pooling, and rectangles; a CCT whose blocks lack either half; scores beyond all else in the arena.
    make_case(Shape((8, 24), 8, 3, 2, 8, 4, (1, 0), (0, 9), stem_channels=(4, 9, 5), **CCT)),
    make_case(Shape((4, 8), 2, 1, 2, 5, 2, (1, 0), (0, 7), stem_channels=(6,), stem_kernel=5, **CCT), "int8"),
    make_case(Shape((9, 30), 1, 1, 2, 1, 1, (0,), (1,), **CCT)),
]
RANDOM = [random_case(seed) for seed in range(10)]
# Vectors of the machine, and one float at a time as on a microcontroller.
BUILDS: dict[str, tuple[str, ...]] = {"vectors": (), "scalars": ("-U__SSE2__", "-U__ARM_NEON")}


@pytest.fixture(scope="module", params=list(BUILDS.values()), ids=list(BUILDS))
def answered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Case], list[Answer]]:
    """Cases, and what C gave for them under sanitizers."""
    cases = [*EDGES, *RANDOM]
    flags = ("-std=c99", "-O1", *STRICT, *SANITIZERS, *request.param)
    program = build(cases, tmp_path_factory.mktemp("c"), [c_compiler(), *flags])
    return cases, run(cases, [program])


def test_features_are_torchs(answered: tuple[Sequence[Case], Sequence[Answer]]) -> None:
    """Features are torch's to 1e-5 of their scale, in int8 those of rounded weights."""
    assert_equal_features(*answered, tolerance=1e-5)


def test_the_arena_is_used_to_its_end(answered: tuple[Sequence[Case], Sequence[Answer]]) -> None:
    """The arena is as large as the planner says, and no larger than needed wherever a head is kept.

    The last block may need less, where it computes the class token alone; then the others decide.
    """
    num_whole = 0
    for case, answer in zip(*answered, strict=True):
        shape = case.network.shape
        planned = c_arena_bytes(c_sizes(shape), shape.num_heads, shape.hidden_dim)
        assert answer.used_bytes <= planned, shape
        whole_blocks = slice(shape.depth - 1) if shape.pooling == "class_token" else slice(None)
        heads, channels = shape.num_heads[whole_blocks], shape.hidden_dim[whole_blocks]
        if any(heads) and c_arena_bytes(c_sizes(shape), heads, channels) == planned:
            assert answer.used_bytes == planned, shape
            num_whole += 1
    assert num_whole >= 5


@pytest.mark.parametrize("case", [*EDGES, *RANDOM], ids=lambda case: case.precision)
def test_constants_are_as_many_as_planned(case: Case) -> None:
    """All arrays of model.c, and the structs that name them, have the planned bytes."""
    shape = case.network.shape
    source = model_files(case.network, case.image, case.precision)["model.c"]
    sizes = {"float": 4, "int8_t": 1}
    arrays = re.findall(r"^static const VIT_ALIGNED (\w+) \w+\[(\d+)\] = ", source, re.MULTILINE)
    layers = len(shape.stem_channels) + (shape.pooling == "sequence")
    structs = 132 + 104 * shape.depth + 20 * layers + 20 * (shape.stem_channels != ()) + 8 * shape.norm_before_blocks
    structs += 0 if shape.qk_norm is None else 16 * shape.depth
    planned = c_weight_bytes(c_sizes(shape), shape.num_heads, shape.hidden_dim, case.precision)
    assert sum(sizes[c_type] * int(length) for c_type, length in arrays) + structs == planned


@pytest.mark.slow
def test_many_random_sub_models(tmp_path: Path) -> None:
    """Fifty more are torch's, optimised for this machine."""
    cases = [random_case(seed) for seed in range(100, 150)]
    program = build(cases, tmp_path, [c_compiler(), "-std=gnu99", "-O3", "-march=native", *STRICT])
    assert_equal_features(cases, run(cases, [program]), tolerance=1e-5)


def test_other_types_are_refused_by_name() -> None:
    """Neither images nor weights of float16 are approximated."""
    case = EDGES[0]
    with pytest.raises(InputError, match="weights of float32 and int8, got precision 'float16'"):
        model_files(case.network, case.image, "float16")
    with pytest.raises(InputError, match="images of uint8 or float32, got float16"):
        model_files(case.network, case.image.replace(dtype="float16"), "float32")


def test_weights_must_be_finite() -> None:
    """A weight that is no number would make every feature one."""
    for precision in ("float32", "int8"):
        case = make_case(Shape(2, 2, 1, 2, 5, 3, (2,), (4,)), seed=3)
        case.network.patch_embed.proj.weight.data[0, 0] = float("nan")
        with pytest.raises(InputError, match="must be finite"):
            model_files(case.network, case.image, precision)
