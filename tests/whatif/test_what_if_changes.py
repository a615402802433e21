"""Changes of a fleet and a goal, against fleets written by hand; mistakes are named in one sentence."""

import re
from typing import Any

import pytest

from planner.errors import InputError
from planner.rules.cost import device_costs, transfers_us
from planner.schema import Goal
from planner.whatif import Case
from planner.whatif.case import ImpossibleError, split_entries
from planner.whatif.changes import apply_changes
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.yard import FLEET, GOAL, MIB, PROFILE, WIRE, after, devices, fleet, links, names, scenarios

# --- devices leave ---


def test_one_of_several_is_dropped() -> None:
    """The other keeps its name, its link and its medium; pins of both mean the remaining one."""
    case = after(goal=GOAL, drop=["pi-1"])
    assert list(devices(case)) == ["gateway", "pi-2", "box.a=b", "shed"]
    assert ("gateway", "pi-2", 20.0, "link 1") in links(case)
    assert len(case.fleet.links) == 3
    assert (case.goal.pin, case.goal.forbid, case.goal.leave_out) == ({"a": ("pi-2",)}, {}, ("shed",))


def test_what_is_behind_a_lost_device_is_lost_with_it() -> None:
    """The shed is lost with the box, its relay, and the scenario's name says so; a default link would reach it."""
    (one,) = scenarios(drop=["box.a=b"])
    assert one.scenario.name == "without box.a=b (and with it shed)"
    assert list(devices(after(drop=["box.a=b"]))) == ["gateway", "pi"]
    assert after(goal=GOAL, drop=["box.a=b"]).goal.leave_out == ()
    reached = fleet(default_link=WIRE)
    assert list(devices(after(reached, drop=["box.a=b"]))) == ["gateway", "pi", "shed"]
    assert names(scenarios(reached, drop=["box.a=b"])) == ["without box.a=b"]


def test_several_are_dropped_at_once() -> None:
    """A list is one scenario; a device with a comma in its name is one device; `each` drops one at a time."""
    assert list(devices(after(drop=["pi,shed"]))) == ["gateway", "box.a=b"]
    odd = fleet(devices=[{"name": n, "macs_per_second": 1e6, "memory_budget": 9} for n in ("gateway", "a,b")], links=[])
    odd = odd.replace(default_link=WIRE)
    assert list(devices(after(odd, drop=["a,b"]))) == ["gateway"]
    each = ["without gateway", "without pi-1", "without pi-2", "without box.a=b (and with it shed)", "without shed"]
    assert names(scenarios(drop_each=True)) == each


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        ("gateway", "'gateway' has the image and joins the features."),
        ("pi", "class 'a' is pinned to 'pi', which is lost."),
        ("pi-1,pi-2", "class 'a' is pinned to 'pi', which is lost."),
    ],
)
def test_devices_that_cannot_be_dropped(dropped: str, reason: str) -> None:
    """Without the aggregator, or all devices a class is pinned to, the scenario is impossible."""
    (one,) = scenarios(goal=GOAL, drop=[dropped])
    with pytest.raises(ImpossibleError, match=re.escape(reason)):
        apply_changes(Case.of(PROFILE, FLEET, GOAL), one.scenario.changes)


@pytest.mark.parametrize("seed", range(60))
def test_a_group_taken_apart_takes_the_same_time(seed: int) -> None:
    """Splitting a device group leaves every transfer time as it was, on meshed fleets with shared media."""
    profile = random_profile(seed)
    on = random_fleet(profile, seed, num_devices=4, meshed=True)
    groups = [d.name for d in on.devices if d.count > 1]
    other = split_entries(Case.of(profile, on, Goal()), groups).fleet
    assert all(d.count == 1 for d in other.devices)
    times = [transfers_us(f, [d.widths[0] for d in device_costs(profile, f)]) for f in (on, other)]
    assert times[0] == times[1]


# --- devices join ---


def test_one_more_of_a_device_is_like_it() -> None:
    """The new device has the first one's budget, numbers, links and medium, and a new name."""
    case = after(goal=GOAL, add=["pi=2"])
    added = {d.name: d for d in case.fleet.devices}["pi-4"]
    assert (added.kind, added.memory_budget, added.runtime_overhead, added.count) == ("board", 3001, 1000, 1)
    assert {("gateway", "pi", 20.0, "link 1"), ("gateway", "pi-3", 20.0, "link 1")} <= links(case)
    assert case.goal == GOAL
    assert names(scenarios(add=["pi=2"])) == ["+ 2 pi"]


def test_one_more_of_a_kind_is_like_the_first_of_it() -> None:
    """A new "board" is like the Pis; devices behind a relay are linked to a new relay as well."""
    assert ("gateway", "board", 20.0, "link 1") in links(after(add=["board"]))
    case = after(add=["box.a=b"])
    assert {("gateway", "box.a=b-2", 90.0, False), ("shed", "box.a=b-2", 90.0, False)} <= links(case)


def test_a_new_kind_has_its_card_and_the_slowest_link() -> None:
    """An ESP32-S3 has 512 KiB, 8 MB of flash and the Pis' Wi-Fi, or the default link where there is one."""
    case = after(add=["esp32-s3"])
    added = next(d for d in case.fleet.devices if d.name == "esp32-s3")
    assert (added.kind, added.memory_budget, added.storage_budget) == ("esp32-s3", MIB // 2, 8_000_000)
    # ONNX Runtime would copy weights from it.
    assert after(add=["raspberry-pi-5"]).fleet.devices[-1].storage_budget is None
    assert ("gateway", "esp32-s3", 20.0, "link 1") in links(case)
    assert len(after(fleet(default_link=WIRE), add=["esp32-s3"]).fleet.links) == 3


def test_a_lost_device_is_replaced() -> None:
    """With both changes, the new device equals the lost one but for its name."""
    case = after(drop=["pi"], add=["pi"])
    assert list(devices(case)) == ["gateway", "box.a=b", "shed", "pi-3"]
    assert ("gateway", "pi-3", 20.0, "link 1") in links(case)
    lonely = fleet(devices=[{"name": "gateway", "macs_per_second": 1e6, "memory_budget": 9}], links=[])
    with pytest.raises(InputError, match=r"`add=esp32-s3`: 'esp32-s3' must be reached from 'gateway', which has no"):
        scenarios(lonely, add=["esp32-s3"])


# --- numbers change ---


@pytest.mark.parametrize(
    ("text", "name", "key", "value"),
    [
        ("pi.memory_budget=1KiB", "pi", "memory_budget", 1024),
        ("pi-2.memory_budget=1024", "pi-2", "memory_budget", 1024),
        ("box.a=b.active_power_w=7.5", "box.a=b", "active_power_w", 7.5),
        ("box.a=b.active_power_w=null", "box.a=b", "active_power_w", None),
        ("pi.precision=int8", "pi", "precision", "int8"),
        ("pi.precision=float16,int8", "pi", "precision", ("float16", "int8")),
        ("shed.kind=esp32-s3", "shed", "kind", "esp32-s3"),
        ("shed.macs_per_second=2e7", "shed", "macs_per_second", 2e7),
    ],
)
def test_keys_of_a_device(text: str, name: str, key: str, value: object) -> None:
    """The last dot separates name and key; values are read as in a file; one of several becomes its own entry."""
    (one,) = scenarios(set=[text])
    assert one.scenario.name == text.replace(f"{key}=", f"{key} ")
    case = after(set=[text])
    assert {d.name: getattr(d, key) for d in case.fleet.devices}[name] == value
    assert len(case.fleet.members) == len(FLEET.members)


def test_links_of_a_device() -> None:
    """A bandwidth changes for all on the medium, a latency for the device's own links."""
    case = after(set=["box.a=b.bandwidth_mbps=8"])
    assert {(*link.between, link.bandwidth_mbps) for link in case.fleet.links} == {
        ("gateway", "pi", 20.0),
        ("gateway", "box.a=b", 8.0),
        ("box.a=b", "shed", 8.0),
    }
    case = after(set=["pi-1.bandwidth_mbps=8"])
    assert {mbps for a, b, mbps, _ in links(case) if "pi" in b} == {8.0}
    assert {link.latency_ms for link in after(set=["pi.latency_ms=7"]).fleet.links} == {7.0, 0.5}
    default = after(fleet(default_link=WIRE), set=["default_link.latency_ms=0.25"]).fleet.default_link
    assert default is not None
    assert default.latency_ms == 0.25


def test_aggregator_and_count() -> None:
    """Another device becomes the aggregator; a larger or smaller count keeps the remaining names."""
    assert after(set=["aggregator=shed"]).fleet.aggregator == "shed"
    assert list(devices(after(set=["pi.count=1"]))) == ["gateway", "pi-1", "box.a=b", "shed"]
    assert [m.name for m in after(set=["pi.count=4"]).fleet.members][-2:] == ["pi-3", "pi-4"]
    assert after(set=["pi.count=2"], cross=False).fleet == FLEET


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pie.memory_budget=1", "'pie' is not a device of the fleet; did you mean 'pi'?"),
        ("pi.memory_bugdet=1", "unknown key 'memory_bugdet'; did you mean 'memory_budget'?"),
        ("pi.zzz=1", "unknown key 'zzz'; known are kind, count, memory_budget,"),
        ("pi.name=x", "unknown key 'name'"),
        ("pi.memory_budget=-1", "devices[1] 'pi': memory_budget must be > 0, got -1."),
        ("pi.memory_budget=lots", "memory_budget must be a number of bytes or a size such as \"512MiB\", got 'lots'."),
        ("pi.count=0", "count must be >= 1, got 0."),
        ("pi-1.count=2", "count must be that of an entry of the file, 'pi-1' is one of several devices."),
        ("pi.kind=raspberry-pi-6", "kind must be one of board, esp32-s3,"),
        ("pi.bandwidth_mbps=fast", 'bandwidth_mbps must be a valid number, got "fast".'),
        ("aggregator=gatewy", "aggregator must be one of the devices, got 'gatewy'; did you mean 'gateway'?"),
        ("default_link.bandwidth_mbps=1", "'default_link' must be in the fleet to be changed, got none."),
        ("default_link.count=1", "unknown key 'count'; known are bandwidth_mbps, latency_ms."),
        ("pi=3", "must be NAME.KEY=VALUE or aggregator=NAME"),
        ("pi.kind=", "must be NAME.KEY=VALUE or aggregator=NAME"),
        ("pi.kind", "must be NAME.KEY=VALUE or aggregator=NAME"),
        (".kind=x", "must be NAME.KEY=VALUE or aggregator=NAME"),
    ],
)
def test_wrong_settings_are_refused(text: str, message: str) -> None:
    """The message has the setting, then the sentence of the file with the nearest name or key."""
    with pytest.raises(InputError, match=re.escape(f"`set={text}`: ") + ".*" + re.escape(message)):
        scenarios(set=[text])


def test_a_device_on_the_default_link_has_no_link_to_set() -> None:
    """The message says what to set instead."""
    lone = fleet(links=[], default_link=WIRE)
    with pytest.raises(InputError, match=r"'pi' has no link of its own, only the default link: set 'default_link'"):
        scenarios(lone, set=["pi.bandwidth_mbps=3"])


def test_factors() -> None:
    """Budgets are rounded down (3001 / 2 = 1500.5); bandwidths and latencies are multiplied exactly."""
    assert [m.memory_budget for m in after(scale=["memory=0.5"]).fleet.members] == [1000, 1500, 1500, 2000, 2500]
    stored, *others = FLEET.model_dump()["devices"]
    stored |= {"engine": "c", "storage_budget": 900}
    members = after(fleet(devices=[stored, *others]), scale=["storage=0.5"]).fleet.members
    assert [m.storage_budget for m in members] == [450, None, None, None, None]
    assert [m.memory_budget for m in members] == [m.memory_budget for m in FLEET.members]
    with pytest.raises(InputError, match=r"storage_budget must be given to be scaled, '\w+' has none"):
        after(scale=["storage=0.5"])
    scaled = after(fleet(default_link=WIRE), scale=["bandwidth=0.1", "latency=3"]).fleet
    assert [(s.bandwidth_mbps, s.latency_ms) for s in scaled.link_speeds] == [(2.0, 6.0), *[(9.0, 1.5)] * 3]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("0.5..2.0/7", ["0.5", "0.75", "1", "1.25", "1.5", "1.75", "2"]),
        ("0.5,1,2", ["0.5", "1", "2"]),
        ("3", ["3"]),
        ("1..1.0001/3", ["1", "1.00005", "1.0001"]),
        ("1..2/4", ["1", "1.333", "1.667", "2"]),
    ],
)
def test_ranges(text: str, labels: list[str]) -> None:
    """A range has equal steps including both ends, with names as short as they differ."""
    assert names(scenarios(scale=[f"latency={text}"])) == [f"latency x{label}" for label in labels]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory=0.5..2/1", "a range must be A..B/N with N values from 2 to 1000, got '1'."),
        ("memory=0.5..2/1001", "from 2 to 1000, got '1001'."),
        ("memory=0.5..2/x", "from 2 to 1000, got 'x'."),
        ("memory=0.5..2", "from 2 to 1000, got no /."),
        ("memory=2..0.5/3", "a range A..B/N must rise, got 2 and 0.5."),
        ("memory=2..2/3", "a range A..B/N must rise, got 2 and 2."),
        ("memory=0..2/3", "factors must be > 0, got 0."),
        ("memory=-1,2", "factors must be > 0, got -1."),
        ("memory=a..2/3", "values must be numbers, got 'a'."),
        ("memory=nan", "values must be numbers, got 'nan'."),
        ("memory=1e999", "values must be numbers, got '1e999'."),
        ("memory=1,,2", "must be values with commas between, got an empty one."),
        ("memory", "must be values with commas between"),
        ("memroy=2", "must be memory, storage, bandwidth, latency = factors, got 'memroy'; did you mean 'memory'?"),
        ("memory=1e-9", "memory_budget must be > 0, got 0."),
    ],
)
def test_wrong_ranges_are_refused(text: str, message: str) -> None:
    """One sentence begins with the setting."""
    with pytest.raises(InputError, match=re.escape(f"`scale={text}`: ") + ".*" + re.escape(message)):
        scenarios(scale=[text])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"drop": ["shet"]}, "`drop=shet`: 'shet' is not a device of the fleet; did you mean 'shed'?"),
        ({"drop": ["pi,,shed"]}, "`drop=pi,,shed`: must be names with commas between, got an empty one."),
        ({"add": ["esp32-s4"]}, "`add=esp32-s4`: must be a device of the fleet, or a kind that is in it or has a card"),
        ({"add": ["esp32-s4"]}, "got 'esp32-s4'; did you mean 'esp32-s3'?"),
        ({"add": ["pi=0"]}, "`add=pi=0`: must be KIND=COUNT with a count from 1 to 10000, got '0'."),
        ({"add_each": ["pi,"]}, "`add_each=pi,`: must be names with commas between"),
    ],
)
def test_unknown_names_are_refused(flags: dict[str, Any], message: str) -> None:
    """The message has the setting, the rule and the nearest name."""
    with pytest.raises(InputError, match=re.escape(message)):
        scenarios(**flags)
