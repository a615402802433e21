"""Fleet files: every mistake is named with its place; sizes and counts mean what they say."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.schema import Fleet, read_document
from planner.schema.base import bytes_rounded_down, bytes_rounded_up
from planner.schema.fleet import Device
from tests.helpers.common import Json
from tests.helpers.complaints import FLEET, complaint, device_complaint, fleet_complaint
from tests.helpers.pencil import fleet_data


def test_negative_memory_budget() -> None:
    """A negative memory budget is named with its device, the rule and the value."""
    data = fleet_data()
    data["devices"][1] |= {"name": "pi", "memory_budget": -1}
    assert complaint(json.dumps(data)) == "devices[1] 'pi': memory_budget must be > 0, got -1."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_budget": 0}, "memory_budget must be > 0, got 0."),
        ({"memory_budget": "0.5B"}, "memory_budget must be > 0, got"),
        ({"memory_budget": 1.5}, "memory_budget must be a valid integer, got 1.5."),
        ({"memory_budget": True}, "memory_budget must be a valid integer, got true."),
        ({"memory_budget": None}, "memory_budget must be a valid integer, got null."),
        ({"runtime_overhead": -5}, "runtime_overhead must be >= 0, got -5."),
        ({"macs_per_second": -1}, "macs_per_second must be >"),
        ({"macs_per_second": "fast"}, 'macs_per_second must be a valid number, got "fast".'),
        ({"count": 0}, "count must be >= 1, got 0."),
        ({"count": 10**9}, "count must be <= 10000, got 1000000000."),
        ({"precision": "int4"}, "precision must be 'float32', 'float16' or 'int8', got \"int4\"."),
        ({"kind": None}, "a device must have a kind or its own macs_per_second, got neither."),
    ],
)
def test_wrong_values_of_a_device(changes: Json, message: str) -> None:
    """The message names the device, the key, the rule and the value."""
    assert device_complaint(**changes).startswith(f"devices[1] 'near': {message}")


def test_empty_name() -> None:
    """A device must have a name."""
    assert device_complaint(name="").startswith("devices[1] '': name must have at least 1 character")


@pytest.mark.parametrize("size", ["512", "-1MiB", "1e3MB", "MiB", "1.MiB", "", "½GiB", "5 lightyears"])
def test_bad_sizes(size: str) -> None:
    """A size must be a plain number with a unit."""
    message = device_complaint(memory_budget=size)
    assert message == (
        f"devices[1] 'near': memory_budget must be a number of bytes or a size such as \"512MiB\", got {size!r}."
    )


@pytest.mark.parametrize(
    ("size", "meant"),
    [
        ("512Mi", "'512MiB'"),
        ("512mib", "'512MiB'"),
        ("512M", "'512MiB' or '512MB'"),
        ("2000kB", "'2000KiB' or '2000KB'"),
        ("1.5 gig", "'1.5GiB'"),
        ("7 bytes", "'7B'"),
    ],
)
def test_a_size_that_is_nearly_right_names_the_right_ones(size: str, meant: str) -> None:
    """Units of other programs are refused with those that they may stand for."""
    assert device_complaint(memory_budget=size).endswith(f"got {size!r}; did you mean {meant}?")


def test_a_number_without_a_fraction_is_whole() -> None:
    """2.0 is a count and a size, 2.5 neither."""
    data = fleet_data()
    for i in (1, 2):
        data["devices"][i] |= {"memory_budget": 2048.0, "count": 2.0}
    data["links"] = []
    data["default_link"] = {"bandwidth_mbps": 1, "latency_ms": 0}
    FLEET.write_text(json.dumps(data))
    assert [(d.memory_budget, d.count) for d in read_document(FLEET, Fleet).devices[1:]] == [(2048, 2)] * 2
    assert device_complaint(count=2.5).startswith("devices[1] 'near': count must be a valid integer, got 2.5")


def test_empty_fleet() -> None:
    """A fleet must have at least one device."""
    assert fleet_complaint(lambda data: data.update(devices=[])).startswith("devices must have at least 1 ")


def test_duplicate_device_names() -> None:
    """Two devices of one name are refused."""
    message = device_complaint(name="far")
    assert message == "devices: names must differ, 'far' is given twice."


def test_duplicate_names_by_count() -> None:
    """`near` with count 2 stands for `near-1`, which must not be another device's name."""

    def clash(data: Json) -> None:
        data["devices"][1]["count"] = 2
        data["devices"][2]["name"] = "near-1"
        data["links"] = []

    assert fleet_complaint(clash) == "devices: names must differ, 'near-1' is given twice."


def test_unknown_aggregator() -> None:
    """An unknown aggregator is refused with the nearest device."""
    message = fleet_complaint(lambda data: data.update(aggregator="gatway"))
    assert message.startswith("aggregator must be one of the devices, got 'gatway'; did you mean 'gateway'?")


def test_an_aggregator_is_one_device() -> None:
    """A name that stands for two devices cannot be the aggregator."""

    def two(data: Json) -> None:
        data["devices"][1]["count"] = 2
        data["aggregator"] = "near"

    assert fleet_complaint(two).startswith("aggregator must be one of the devices, got 'near'")


def test_unknown_link_end() -> None:
    """An unknown device in a link is named with the link and the nearest device."""
    message = fleet_complaint(lambda data: data["links"][1].update(between=["near", "fur"]))
    assert message.startswith("links[1]: 'fur' is not a device; did you mean 'far'?")


def test_a_link_to_itself() -> None:
    """A link must join two different devices."""
    message = fleet_complaint(lambda data: data["links"][0].update(between=["near", "near"]))
    assert message == "links[0]: must join two devices, got 'near' twice."


@pytest.mark.parametrize(
    ("size", "num_bytes"),
    [
        ("512MiB", 512 * 1024**2),
        ("1.5GB", 1_500_000_000),
        ("1.5GiB", 1_610_612_736),
        ("76 KB", 76_000),
        (" 3KiB ", 3072),
        ("2TB", 2 * 10**12),
        ("1TiB", 1024**4),
        ("7B", 7),
        (7, 7),
        (2e9, 2 * 10**9),
    ],
)
def test_sizes(size: object, num_bytes: int) -> None:
    """A size may have decimal or binary units, or be a plain number of bytes."""
    assert bytes_rounded_down(size) == bytes_rounded_up(size) == num_bytes


def test_budget_is_rounded_down_and_overhead_up() -> None:
    """0.001 KiB is 1.024 bytes: a budget of 1 byte, an overhead of 2."""
    device = Device.model_validate(
        {"name": "pi", "macs_per_second": 1, "memory_budget": "0.001KiB", "runtime_overhead": "0.001KiB"}
    )
    assert (device.memory_budget, device.runtime_overhead) == (1, 2)


@settings(deadline=None)
@given(st.fractions(0, 10**6, max_denominator=1000).map(lambda f: f.limit_denominator(1000)))
def test_sizes_are_exact(amount: Fraction) -> None:
    """A decimal amount of KiB is rounded by less than a byte, to the safe side."""
    text = f"{float(amount):.3f}"
    exact = Fraction(text) * 1024
    assert 0 <= exact - bytes_rounded_down(f"{text}KiB") < 1
    assert 0 <= bytes_rounded_up(f"{text}KiB") - exact < 1


def test_count_makes_numbered_devices() -> None:
    """`pi` with count 4 stands for pi-1 to pi-4, equal but for their names; links may name `pi`."""
    data = fleet_data()
    data["devices"][1] |= {"name": "pi", "count": 4}
    data["links"] = [{"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}]
    fleet = Fleet.model_validate(data)
    assert [m.name for m in fleet.members] == ["gateway", "pi-1", "pi-2", "pi-3", "pi-4", "far"]
    assert fleet.member_names["pi"] == ("pi-1", "pi-2", "pi-3", "pi-4")
    assert {m.model_copy(update={"name": ""}) for m in fleet.members[1:5]} == {
        Device.model_validate(data["devices"][1] | {"name": "x", "count": 1}).model_copy(update={"name": ""})
    }
