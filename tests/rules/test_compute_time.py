"""Compute time of a device: by the table of its kind in its engine, else by a rate, else refused."""

import math
import re
from typing import Any

import pytest

from planner.errors import InputError
from planner.rules import cost
from planner.rules.compute_time import measured_time
from planner.schema import Profile, sha256_of
from planner.solver import solve
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, fleet_data, profile

ROW = profile().latency["board"][0]
# 10.5 us for ONNX Runtime, 100 us for C, 300 us for C in int8; each head, channel and half costs as much more.
IN_C = ROW.replace(engine="c", fixed_us=100)
INT8_IN_C = IN_C.replace(precision="int8", fixed_us=300)


def timed(*rows: Any) -> Profile:
    """Return the pencil profile whose kind `board` has these rows."""
    return profile(latency={"board": rows})


def fixed_us(of: Profile, **changes: Any) -> list[float]:
    """Return the fixed time [us] at each width and precision of a board with some keys changed."""
    device = {**fleet_data()["devices"][1], "macs_per_second": None, "kind": "board", **changes}
    gateway = fleet_data()["devices"][0]
    costs = cost.device_costs(of, fleet(devices=[gateway, device], links=fleet_data()["links"][:1]))
    return [float(width.time.fixed) for width in costs[1].widths]


def test_each_engine_has_its_own_table() -> None:
    """In whatever order the rows are; a board of unstated engine runs ONNX Runtime."""
    for rows in ((ROW, IN_C), (IN_C, ROW)):
        assert fixed_us(timed(*rows)) == [10.5]
        assert fixed_us(timed(*rows), engine="onnxruntime") == [10.5]
        assert fixed_us(timed(*rows), engine="c") == [100]


def test_a_plan_has_the_times_of_the_devices_engine() -> None:
    """The plan for a board in C takes 89.5 us longer than that in ONNX Runtime, which differs in nothing else."""
    gateway, board, _ = fleet_data()["devices"]
    board |= {"macs_per_second": None, "kind": "board", "memory_budget": "1MiB"}
    goal = floored(min_retention=0.9, leave_out=["gateway"])
    plans = [
        solve(timed(ROW, IN_C), fleet(devices=[gateway, board | change], links=fleet_data()["links"][:1]), goal)
        for change in ({}, {"engine": "c"})
    ]
    first, second = (plan.assignments[0].compute_us for plan in plans)
    assert 89 <= second - first <= 90
    assert not plans[1].assignments[0].estimated


@pytest.mark.parametrize(("engine", "other", "row"), [("c", "onnxruntime", ROW), ("onnxruntime", "c", IN_C)])
def test_a_table_of_the_other_engine_alone_is_refused(engine: str, other: str, row: Any) -> None:
    """One sentence with the device, its kind, both engines, and what to do."""
    message = (
        f"device 'near': kind 'board' must be timed in the device's engine '{engine}', got times in '{other}' alone; "
        f"make probes with `engine={engine}`, or give the device its own macs_per_second."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fixed_us(timed(row), engine=engine)
    # Which wins over any table: 1,000 MACs of width 8, 500 of width 4 at 1 MAC/us.
    assert fixed_us(timed(row), engine=engine, macs_per_second=1e6) == [1000, 500]


def test_a_precision_that_was_not_timed_in_c_is_refused() -> None:
    """In ONNX Runtime the times of float32 stand for int8; in C they would be too short."""
    assert fixed_us(timed(ROW), precision="int8") == [10.5]
    with pytest.raises(InputError, match=r"timed at in C \(float32\), got 'int8'; make probes with `precision=int8`\."):
        fixed_us(timed(ROW, IN_C), engine="c", precision="int8")
    assert fixed_us(timed(IN_C, INT8_IN_C), engine="c", precision="int8") == [300]


def test_the_last_block_may_have_its_own_coefficients() -> None:
    """100, two halves at 2 and at 3, 2 heads at 1.25 and at 0.25, 3 channels at 0.5 and at 0.125: 114.875 us."""
    row = IN_C.replace(last_head_us=0.25, last_channel_us=0.125)
    assert measured_time(row, 2).compute_us([2, 2], [3, 3]) == math.ceil(114.875)
    assert measured_time(IN_C, 2).compute_us([2, 2], [3, 3]) == 100 + 4 + 5 + 6 + 3
    assert measured_time(row, 1).compute_us([2], [0]) == math.ceil(100 + 2 + 0.5)


def test_the_engine_is_not_written_where_it_is_onnx_runtime() -> None:
    """So that the hash of an older profile, which its plans bear, stays."""
    assert "engine" not in ROW.model_dump()
    assert timed(IN_C).model_dump()["latency"]["board"][0]["engine"] == "c"
    assert sha256_of(timed(ROW)) == sha256_of(timed(ROW.replace(engine="onnxruntime")))
