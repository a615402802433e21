"""Bytes to send in the difference of two plans, by the engine of each device."""

import re
from typing import Any

import pytest

from planner.network.vit import Shape, VisionTransformer
from planner.rules.check import check
from planner.rules.diff import diff_frame
from planner.runtime.c.generate import model_files
from planner.schema import Fleet, ImageInput, Plan, Precision, Preprocessing
from planner.solver import solve
from tests.helpers.goals import floored
from tests.helpers.timed_networks import digits_profile

IMAGE = ImageInput(shape=(1, 8, 8), dtype="uint8", preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)))
PROFILE = digits_profile()
# A block without heads, one without channels; groups of 8 channels.
HEADS = ((0, 2), (), (1,), (0, 1, 2))
GROUPS = ((0, 3, 5), (1,), (), (0, 1))


def planned(**changes: Any) -> tuple[Plan, Fleet]:
    """Return a plan for one device with some keys changed, and its fleet."""
    device = {"name": "board", "macs_per_second": 1e9, "memory_budget": "1GiB", "precision": "int8", **changes}
    fleet = Fleet.model_validate({"aggregator": "board", "devices": [device]})
    return solve(PROFILE, fleet, floored(min_retention=0.5)), fleet


def sent_bytes(plan: Plan, **changes: Any) -> int:
    """Return the bytes to send for the plan's sub-model with some keys changed."""
    kept = {"embed_dim": 32, "kept_heads": HEADS, "kept_channel_groups": GROUPS, **changes}
    (a,) = plan.assignments
    after = plan.replace(assignments=[a.model_dump(mode="json") | kept])
    return int(diff_frame(plan, after, PROFILE)["bytes_to_send"].sum())


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_device_in_c_is_sent_the_constants_of_its_code(precision: Precision) -> None:
    """All arrays of the model.c that is generated for the sub-model, and the structs that name them."""
    plan, _ = planned(engine="c", precision=precision)
    channels = tuple(sum(PROFILE.group_sizes[l][g] for g in block) for l, block in enumerate(GROUPS))
    shape = Shape(8, 2, 1, 10, 32, 16, tuple(map(len, HEADS)), channels)
    source = model_files(VisionTransformer(shape), IMAGE, precision)["model.c"]
    arrays = re.findall(r"^static const VIT_ALIGNED (\w+) \w+\[(\d+)\] = ", source, re.MULTILINE)
    constants = sum({"float": 4, "int8_t": 1}[c_type] * int(length) for c_type, length in arrays)
    assert sent_bytes(plan) == constants + 132 + 104 * 4


def test_a_device_in_onnx_runtime_is_sent_a_byte_for_each_parameter_in_int8() -> None:
    """Padding, which packing adds in its memory, is not sent."""
    plan, _ = planned()
    width = PROFILE.width(32)
    assert width is not None
    params = width.fixed_params + sum(width.head_params[l] * len(block) for l, block in enumerate(HEADS))
    for l, block in enumerate(GROUPS):
        params += width.channel_params[l] * sum(PROFILE.group_sizes[l][g] for g in block)
    assert sent_bytes(plan) == params


def test_another_engine_is_another_sub_model() -> None:
    """The same units are sent again where a device runs C from now on."""
    in_onnx, in_c = planned()[0], planned(engine="c")[0]
    same = in_c.assignments[0].model_dump(mode="json") | {"kept_heads": in_onnx.assignments[0].kept_heads}
    same["kept_channel_groups"] = in_onnx.assignments[0].kept_channel_groups
    (row,) = diff_frame(in_onnx, in_onnx.replace(assignments=[same]), PROFILE).to_dict("records")
    assert (row["gains"], row["loses"]) == ((), ())
    assert row["bytes_to_send"] > 0


def test_the_engine_is_written_where_it_is_c_and_checked() -> None:
    """Older plans, which do not say it, stay valid; one for the other engine is not."""
    plan, fleet = planned(engine="c")
    (a,) = plan.assignments
    assert a.engine == "c"
    assert check(plan, PROFILE, fleet) == []
    assert check(plan.replace(assignments=[a.model_dump(mode="json") | {"engine": None}]), PROFILE, fleet) == []
    wrong = plan.replace(assignments=[a.model_dump(mode="json") | {"engine": "onnxruntime"}])
    assert check(wrong, PROFILE, fleet) == ["board: engine must be 'c', got 'onnxruntime'"]
    assert "engine" not in planned()[0].assignments[0].model_dump()
