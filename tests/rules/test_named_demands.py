"""Devices and classes named in a goal, and devices lost with a relay."""

from typing import Any

import pytest

from planner.errors import InputError
from planner.rules.demands import Demands, demands_of, is_dependent, relay_sets
from planner.schema import Fleet, Goal
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_profile


def boards() -> Fleet:
    """Return a gateway and two equal boards, `pi-1` and `pi-2`."""
    gateway, near, _ = fleet_data()["devices"]
    link = {"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}
    return fleet(devices=[gateway, near | {"name": "pi", "count": 2}], links=[link])


def demanded(**goal: Any) -> Demands:
    """Return the demands of a goal on the boards; the classes are "a" and "b"."""
    return demands_of(profile(), boards(), Goal(**goal))


NOTHING = Demands(pinned={}, forbidden={}, together=(), apart=(), left_out=frozenset(), survive=0)


def test_a_goal_without_demands_demands_nothing() -> None:
    """Floors and limits are not demands on assignments."""
    assert demanded(max_latency_ms=1, max_energy_mj=1, min_retention=0.5) == NOTHING


@pytest.mark.parametrize(
    "goal",
    [
        {"survive": 1},
        {"pin": {"a": ["pi-1"]}},
        {"forbid": {"a": ["pi-1"]}},
        {"together": [["a", "b"]]},
        {"apart": [["a", "b"]]},
        {"leave_out": ["pi-1"]},
    ],
    ids=str,
)
def test_each_demand_is_one(goal: Any) -> None:
    """One demand is enough for the demands to differ from none."""
    assert demanded(**goal) != NOTHING


def test_a_name_with_a_count_stands_for_each_device() -> None:
    """`pi` stands for both boards; a board's own name for that one."""
    assert demanded(pin={"a": ["pi"]}).pinned == {"pi-1": {"a"}, "pi-2": {"a"}}
    assert demanded(pin={"a": ["pi-2"]}).pinned == {"pi-2": {"a"}}
    assert demanded(forbid={"a": ["pi"], "b": ["pi-1", "gateway"]}).forbidden == {
        "pi-1": {"a", "b"},
        "pi-2": {"a"},
        "gateway": {"b"},
    }
    assert demanded(leave_out=["pi"]).left_out == {"pi-1", "pi-2"}


def test_groups_that_share_a_class_are_one() -> None:
    """0 with 1 and 2 with 3 are two groups until 1 goes with 2; 4 and 5 stay separate."""
    five = random_profile(1, num_classes=6)

    def together(*groups: tuple[str, ...]) -> set[frozenset[str]]:
        return set(demands_of(five, boards(), Goal(together=groups)).together)

    assert together(("0", "1"), ("2", "3")) == {frozenset("01"), frozenset("23")}
    assert together(("0", "1"), ("2", "3"), ("4", "5"), ("1", "2")) == {frozenset("0123"), frozenset("45")}
    assert together(("0", "1"), ("1", "0")) == {frozenset("01")}


def test_groups_that_are_apart_are_not_joined() -> None:
    """0 apart from 1 and 1 apart from 2 leaves 0 and 2 free to share a device."""
    three = random_profile(1, num_classes=3)
    apart = demands_of(three, boards(), Goal(apart=(("0", "1"), ("1", "2")))).apart
    assert set(apart) == {frozenset("01"), frozenset("12")}


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"pin": {"aa": ["pi"]}}, r"`pin`: 'aa' is not a class of the profile; did you mean 'a'\?"),
        ({"pin": {"a": ["pi-3"]}}, r"`pin`: 'pi-3' is not a device of the fleet; did you mean 'pi-\d'\?"),
        ({"forbid": {"x": ["pi"]}}, r"`forbid`: 'x' is not a class of the profile\."),
        ({"forbid": {"a": ["gatway"]}}, r"`forbid`: 'gatway' is not a device of the fleet; did you mean 'gateway'\?"),
        ({"together": [["a", "x"]]}, r"`together`: 'x' is not a class of the profile\."),
        ({"apart": [["x", "b"]]}, r"`apart`: 'x' is not a class of the profile\."),
        ({"leave_out": ["qqqq"]}, r"`leave_out`: 'qqqq' is not a device of the fleet\."),
    ],
    ids=str,
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(goal: Any, message: str) -> None:
    """The message has the key, the name and the nearest known name, if any is near."""
    with pytest.raises(InputError, match=message):
        demanded(**goal)


RELAYS = {
    "gateway": frozenset[str](),
    "near": frozenset[str](),
    "far": frozenset({"near"}),
    "end": frozenset({"near", "far"}),
}


def test_relay_sets_are_all_that_are_small_enough() -> None:
    """`near` and `far` relay: none of them, each, and both."""
    assert list(relay_sets(RELAYS, 0)) == [()]
    assert list(relay_sets(RELAYS, 1)) == [(), ("far",), ("near",)]
    assert list(relay_sets(RELAYS, 5)) == [(), ("far",), ("near",), ("far", "near")]


def test_devices_lost_with_a_relay() -> None:
    """With `far`, `end` is lost; with `near`, both; without a lost relay, none."""
    assert [name for name in RELAYS if is_dependent(name, RELAYS, ["far"])] == ["far", "end"]
    assert [name for name in RELAYS if is_dependent(name, RELAYS, ["near"])] == ["near", "far", "end"]
    assert [name for name in RELAYS if is_dependent(name, RELAYS, [])] == []


def broken(served: dict[str, str], **goal: Any) -> list[str]:
    """Return the unmet demands when these devices serve these classes over the relays above."""
    three = random_profile(1, num_classes=3)
    on = fleet(devices=[fleet_data()["devices"][1] | {"name": name} for name in RELAYS], links=[], aggregator="gateway")
    return list(demands_of(three, on, Goal(**goal)).violations(served, RELAYS))


def test_survival_counts_devices() -> None:
    """Each class needs two devices when one may be lost, three when two may, and otherwise one."""
    served = {"gateway": "012", "near": "01"}
    assert broken(served) == broken({"gateway": "012"}) == []
    assert broken(served, survive=1) == ["class '2' must be on 2 devices to survive, got 1"]
    assert [unmet for unmet in broken(served, survive=2) if "when" not in unmet] == [
        "class '0' must be on 3 devices to survive, got 2",
        "class '1' must be on 3 devices to survive, got 2",
        "class '2' must be on 3 devices to survive, got 1",
    ]


def test_survival_counts_what_is_reached_over_a_lost_relay_as_lost() -> None:
    """Three devices behind one relay are not enough; another one beside it is."""
    assert broken({"near": "012", "far": "012", "end": "012"}, survive=1) == [
        f"class '{c}' must be on 1 devices when near is lost to survive, got 0" for c in range(3)
    ]
    assert broken({"near": "012", "gateway": "012"}, survive=1) == []
    # Two lost relays leave the gateway, which is the one that is needed; one lost, `near`, leaves one of two.
    assert broken({"near": "012", "far": "012", "gateway": "012"}, survive=2) == [
        f"class '{c}' must be on 2 devices when near is lost to survive, got 1" for c in range(3)
    ]


def test_a_relay_need_not_serve_to_be_missed() -> None:
    """`far` and `end` are reached over the idle `near`, and lost with it."""
    assert broken({"far": "012", "end": "012"}, survive=1) == [
        f"class '{c}' must be on 1 devices when {name} is lost to survive, got 0"
        for name in ("far", "near")
        for c in range(3)
    ]
