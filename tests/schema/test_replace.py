"""Changed documents are new, validated objects; mistakes get the message that a file would get."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError
from planner.library import load_fleet
from planner.schema import Device, Fleet, Goal, Link
from tests.helpers import pencil
from tests.helpers.common import Json


def test_a_changed_fleet_is_a_new_one() -> None:
    """Sizes may be written as in a file, objects and numpy numbers are accepted, and the old fleet is unchanged."""
    fleet = pencil.fleet()
    gateway, near, far = fleet.devices
    bigger = fleet.replace(devices=[gateway.replace(memory_budget="3KiB"), near, far.replace(count=np.int64(2))])
    assert [m.memory_budget for m in bigger.members] == [3072, 2000, 2000, 2000]
    assert [m.name for m in bigger.members] == ["gateway", "near", "far-1", "far-2"]
    assert fleet == pencil.fleet()
    assert fleet.replace() == fleet


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_budget": -1}, r"^Device: memory_budget must be > 0, got -1\.$"),
        (
            {"memory_budget": "3 kilo"},
            r'^Device: memory_budget must be a number of bytes or a size such as "512MiB", got',
        ),
        ({"memroy_budget": 1}, r"^Device: unknown key 'memroy_budget'; did you mean 'memory_budget'\?$"),
        ({"count": "2"}, r'^Device: count must be a valid integer, got "2"\.$'),
        ({"active_power_w": float("nan")}, "^Device: active_power_w must be a finite number, got NaN"),
        ({"name": object()}, r"^Device: values must be what a file can hold \(got <object"),
    ],
)
def test_a_change_is_validated_like_a_file(changes: Json, message: str) -> None:
    """An unknown key and a wrong value get the message that a file would get."""
    with pytest.raises(InputError, match=message):
        pencil.fleet().devices[0].replace(**changes)


def test_the_message_is_that_of_a_file(tmp_path: Path) -> None:
    """A nested mistake is reported with its place, as in a file."""
    devices = pencil.fleet_data()["devices"]
    devices[1]["count"] = 0
    path = tmp_path / "devices.json"
    path.write_text(json.dumps(pencil.fleet_data() | {"devices": devices}))
    with pytest.raises(InputError, match=r"devices\[1\] 'near': count must be >= 1, got 0") as of_file:
        load_fleet(path)
    with pytest.raises(InputError, match=r"^Fleet: devices\[1\] 'near'") as of_change:
        pencil.fleet().replace(devices=devices)
    assert str(of_change.value).removeprefix("Fleet: ") == str(of_file.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Goal(max_acuracy_drop=0.1),  # type: ignore[call-arg]
            r"^Goal: unknown key 'max_acuracy_drop'; did you mean 'max_accuracy_drop'",
        ),
        (lambda: Goal(max_accuracy_drop=2), r"^Goal: max_accuracy_drop must be <= 1, got 2\.$"),
        (
            lambda: Goal(objective="energy"),
            r"^Goal: objective 'energy' must have max_latency_ms beside it, got none\.$",
        ),
        (lambda: Device(name="a", memory_budget=1), r"^Device: a device must have a kind or its own macs_per_second"),
        (
            lambda: Link(between=("a", "b"), latency_ms=1),  # type: ignore[call-arg]
            r"^Link: bandwidth_mbps is missing\.$",
        ),
        (
            lambda: Fleet(aggregator="b", devices=[{"name": "a", "kind": "x", "memory_budget": 1}]),
            r"^Fleet: aggregator must be one of the devices, got 'b'",
        ),
    ],
)
def test_constructors_validate_like_files(make: Callable[[], object], message: str) -> None:
    """A wrong argument gives one sentence, not pydantic's report."""
    with pytest.raises(InputError, match=message):
        make()
