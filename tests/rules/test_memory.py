"""Memory of sub-models in either engine, and the two budgets that it is counted against."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.rules import cost
from planner.rules.c_memory import CSizes, c_arena_bytes, c_weight_bytes
from planner.rules.check import check
from planner.rules.cost import DeviceCost
from planner.rules.memory import c_memory, onnxruntime_memory
from planner.schema import Device, Fleet, Precision, Profile
from planner.schema.architecture import Stem
from planner.solver import solve
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, fleet_data, profile

HEADS, CHANNELS = [2, 0], [1, 3]

# The pencil model in C at width 8: 5 tokens, heads of 4, 25 values in each of 4 patches of one channel, tiles of 4
# tokens. Arena, in floats: 40 tokens; beside them 40 normed tokens, 40 keys and values, 36 queries and scores, or
# 100 values of 4 patches, or 32 + 4 c of an MLP.
ARENA = 4 * (40 + 116)
# Constants: patches 25 x 8; tokens 5 x 8; a norm of 2 x 8; 2 numbers for the channel's mean and deviation; in each
# half 3 x 8 for norm and output bias; a head 4 x 4 x 8 + 12; a channel 2 x 8 + 1. Structs of 132 and of 2 x 104 bytes.
WEIGHTS = 4 * (200 + 40 + 16 + 2 + 4 * 24 + 2 * (128 + 12) + 4 * 17) + 340
# Image and features.
MESSAGES = 100 + 4 * 8


def board(**changes: Any) -> DeviceCost:
    """Return the costs of the pencil gateway with some keys changed."""
    gateway = fleet_data()["devices"][0] | changes
    return cost.device_costs(profile(), Fleet.model_validate(fleet_data() | {"devices": [gateway], "links": []}))[0]


def use(device: DeviceCost) -> dict[str, int]:
    """Return what 2 heads in block 0 and 1 + 3 channels take of each budget at width 8."""
    at = device.at(8)
    assert at is not None
    return {name: used for name, (used, _) in device.budget_use(at, HEADS, CHANNELS).items()}


def test_activations_in_onnxruntime_are_those_of_the_largest_half_block() -> None:
    """20 fixed + the largest of 2 x 8.5, 1 x 4.25, 0 x 8.5 and 3 x 4.25 = 20 + 17."""
    activations = onnxruntime_memory(profile().widths[0], "float32").activations
    assert activations.peak(HEADS, CHANNELS) == 37
    # Without the second head, the MLP of block 1 is the largest: 20 + 3 x 4.25.
    assert activations.peak([1, 0], CHANNELS) == Fraction("32.75")


def test_padding_adds_up_over_all_units() -> None:
    """82 params x 4 bytes, and 10 bytes of padding for each of 2 heads and 3 for each of 4 channels."""
    width = profile().widths[0].replace(head_padding_bytes=10, channel_padding_bytes=3)
    assert onnxruntime_memory(width, "float32").weights.total(HEADS, CHANNELS) == 82 * 4 + 20 + 12


def test_weights_take_memory_without_a_storage_budget() -> None:
    """In C: weights, arena, image and features, and 1000 bytes of runtime."""
    assert use(board(engine="c")) == {"memory": WEIGHTS + ARENA + MESSAGES + 1000}


def test_weights_take_storage_where_there_is_a_budget_for_it() -> None:
    """Weights and 500 bytes of code count there and nowhere else."""
    device = board(engine="c", storage_budget=20_000, storage_overhead=500)
    assert use(device) == {"memory": ARENA + MESSAGES + 1000, "storage": WEIGHTS + 500}
    assert device.budget_use(device.widths[0], HEADS, CHANNELS)["storage"][1] == 20_000


def test_int8_has_a_byte_for_each_weight_of_a_matrix_and_a_scale_for_each_output() -> None:
    """Tokens, biases and norms stay float32."""
    device = board(engine="c", storage_budget=20_000, storage_overhead=0, precision="int8")
    matrices = 200 + 2 * 128 + 4 * 16
    scales = 4 * (8 + 2 * 12 + 2 * 8 + 4 + 2 * 8)
    rest = 4 * (40 + 16 + 2 + 4 * 24 + 2 * 12 + 4)
    assert use(device)["storage"] == matrices + scales + rest + 340


@pytest.mark.parametrize(
    ("changes", "num_bytes"),
    [({}, 64 * 1024), ({"kind": "rp2350"}, 64 * 1024), ({"kind": "rp2350", "storage_overhead": "1KiB"}, 1024)],
)
def test_code_is_that_of_the_device_its_kind_or_the_default(changes: Json, num_bytes: int) -> None:
    """As with the runtime's memory, the device's own number wins."""
    assert board(engine="c", storage_budget="1MiB", **changes).storage_overhead_bytes == num_bytes


@pytest.mark.parametrize("engine", [None, "onnxruntime"])
def test_a_storage_budget_is_refused_where_weights_are_copied(engine: str | None) -> None:
    """ONNX Runtime holds weights in memory, whatever they are read from."""
    message = r"device 'gateway': storage_budget must be that of a device with engine 'c', .* got engine 'onnxruntime'"
    with pytest.raises(InputError, match=message):
        board(engine=engine, storage_budget="1MiB")


def test_the_c_engine_has_no_float16() -> None:
    """Alone or as a choice, it is refused with the device's name."""
    for precision in ("float16", ["float16", "int8"]):
        with pytest.raises(InputError, match=r"device 'gateway': precision must be float32 or int8 with engine 'c'"):
            board(engine="c", precision=precision)


# --- against the totals that the generated code is checked with


@st.composite
def networks(draw: st.DrawFn) -> tuple[Profile, CSizes, list[int], list[int]]:
    """Draw a profile, the sizes of its network, and heads and channels of each block, at least one of each."""
    channels = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    stem = Stem(channels, *draw(st.sampled_from([(3, 2, False), (3, 1, True), (7, 2, True)])))
    patch = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    grid = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    image = (grid[0] * patch[0] * stem.reduction, grid[1] * patch[1] * stem.reduction)
    tokens = grid[0] * grid[1] + draw(st.integers(0, 2))
    gated, between, weighted = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    norm_first, head_dim, embed_dim = draw(st.booleans()), draw(st.integers(1, 8)), draw(st.sampled_from([4, 8]))
    # A weight for each dim of queries and keys, in layer norms a bias too.
    sizes_of_norms = {None: 0, "rms_norm": 2 * head_dim, "layer_norm": 4 * head_dim}
    qk_norm, qk_norm_size = draw(st.sampled_from(list(sizes_of_norms.items())))
    made = profile(
        num_tokens=tokens,
        head_dim=head_dim,
        input_bytes=channels[0] * image[0] * image[1],
        embedding={
            "channels": channels,
            "image_size": image,
            "patch_size": patch,
            "norm_before_blocks": norm_first,
            "stem_kernel": stem.kernel,
            "stem_stride": stem.stride,
            "stem_max_pool": stem.max_pool,
        },
        gated_mlp=gated,
        qk_norm=qk_norm,
        norm_between_halves=between,
        has_sequence_pooling=weighted,
    )
    norms = (norm_first, 1 + gated, qk_norm_size, between, weighted)
    sizes = CSizes(tokens, embed_dim, head_dim, stem, image, patch, *norms)
    blocks = draw(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3)), min_size=2, max_size=2))
    return made, sizes, [h for h, _ in blocks], [c for _, c in blocks]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(networks(), st.sampled_from(["float32", "int8"]))
def test_the_linear_form_is_the_generated_code(
    drawn: tuple[Profile, CSizes, list[int], list[int]], precision: Precision
) -> None:
    """Arena and constants equal those of model.c, with a stem, rectangles and further tokens as well."""
    made, sizes, heads, channels = drawn
    width = made.width(sizes.embed_dim)
    assert width is not None
    memory = c_memory(made, width, precision)
    messages = made.input_bytes + 4 * sizes.embed_dim
    assert memory.activations.peak(heads, channels) == c_arena_bytes(sizes, heads, channels) + messages
    assert memory.weights.total(heads, channels) == c_weight_bytes(sizes, heads, channels, precision)


def test_an_older_profile_is_read_as_one_without_a_stem() -> None:
    """What it does not say follows from its tokens and the bytes of an image."""
    stated = {"channels": [1], "image_size": [10, 10], "patch_size": [5, 5]}
    older, newer = profile(), profile(embedding=stated)
    for width in older.widths:
        assert c_memory(older, width, "float32") == c_memory(newer, width, "float32")


def test_padding_and_embedding_are_left_out_where_they_are_not_known() -> None:
    """So that the hash of an older profile, which its plans bear, stays."""
    data = profile().model_dump(mode="json")
    assert "embedding" not in data
    assert not {"head_padding_bytes", "channel_padding_bytes"} & set(data["widths"][0])
    assert {"storage_budget", "storage_overhead"}.isdisjoint(Device(name="a", kind="b", memory_budget=1).model_dump())


# --- the check


def stored(memory_budget: int, storage_budget: int) -> Fleet:
    """Return the gateway alone, with these budgets."""
    changes = {"engine": "c", "memory_budget": memory_budget, "storage_budget": storage_budget, "storage_overhead": 0}
    return fleet(devices=[fleet_data()["devices"][0] | changes], links=[])


@pytest.mark.parametrize("budget", ["memory", "storage"])
def test_a_plan_beyond_either_budget_is_refused(budget: str) -> None:
    """The plan that fills a budget is valid; with a byte less it is not, and the message has both numbers."""
    plan = solve(profile(), stored(10**6, 10**6), floored(min_retention=0.9))
    (a,) = plan.assignments
    assert a.storage_bytes is not None
    used = {"memory": a.memory_bytes, "storage": a.storage_bytes}
    for spare, problems in (
        (0, []),
        (-1, [f"gateway: {budget} must be within the budget of {used[budget] - 1} bytes, got {used[budget]}"]),
    ):
        budgets = {"memory": 10**6, "storage": 10**6, budget: used[budget] + spare}
        on = stored(budgets["memory"], budgets["storage"])
        claimed = plan.replace(fleet_sha256=solve(profile(), on, floored(min_retention=0.0)).fleet_sha256)
        assert check(claimed, profile(), on) == problems


def test_storage_that_is_not_the_recomputed_one_is_refused() -> None:
    """It must be stated where there is a budget for it, and only there."""
    plan = solve(profile(), stored(10**6, 10**6), floored())
    (a,) = plan.assignments
    for claimed in (None, (a.storage_bytes or 0) + 1):
        broken = plan.replace(assignments=[a.replace(storage_bytes=claimed)])
        message = f"gateway: storage_bytes must be {a.storage_bytes}, got {claimed}"
        assert check(broken, profile(), stored(10**6, 10**6)) == [message]
    assert all(a.storage_bytes is None for a in solve(profile(), fleet(), floored()).assignments)
