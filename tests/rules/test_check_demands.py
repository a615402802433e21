"""Rules of the check about demands, energy, precision and shared links, on plans made on paper."""

import pytest

from planner.errors import InputError
from tests.helpers.common import Json
from tests.helpers.paper_plans import INT8, TRAVEL_US, complains, lossy, paper, powered, precise
from tests.helpers.pencil import fleet, fleet_data


@pytest.mark.parametrize("served", [{"gateway": "ab"}, {"near": "a", "far": "b"}, {"gateway": "a", "near": "ba"}])
def test_the_plans_of_these_tests_are_valid(served: dict[str, str]) -> None:
    """Without demands, the plans have no violations."""
    assert paper(served) == []


# --- who serves what


@pytest.mark.parametrize(
    ("goal", "kept", "broken", "violation"),
    [
        (
            {"leave_out": ["far"]},
            {"near": "ab"},
            {"near": "a", "far": "ab"},
            "device 'far' must be left out, but it serves 2 classes",
        ),
        (
            {"pin": {"a": ["near"]}},
            {"near": "a", "far": "ab"},
            {"near": "b", "far": "ab"},
            "class 'a' must be served by 'near', but it is not",
        ),
        # An idle device does not serve what is pinned to it either.
        (
            {"pin": {"b": ["near"]}},
            {"near": "ab"},
            {"gateway": "ab"},
            "class 'b' must be served by 'near', but it is not",
        ),
        (
            {"forbid": {"b": ["far"]}},
            {"near": "b", "far": "a"},
            {"near": "ab", "far": "b"},
            "class 'b' must not be served by 'far', but it is",
        ),
        (
            {"together": [["b", "a"]]},
            {"near": "ab", "far": "ab"},
            {"near": "ab", "far": "a"},
            r"far: must serve all of \['a', 'b'\] or none, got \['a'\]",
        ),
        (
            {"apart": [["b", "a"]]},
            {"near": "a", "far": "b"},
            {"near": "ba", "far": "b"},
            r"near: must serve at most one of \['a', 'b'\], got \['a', 'b'\]",
        ),
        (
            {"survive": 1},
            {"near": "ab", "gateway": "ab"},
            {"near": "b", "gateway": "ab"},
            "class 'a' must be on 2 devices to survive, got 1",
        ),
    ],
    ids=str,
)
def test_each_demand(goal: Json, kept: dict[str, str], broken: dict[str, str], violation: str) -> None:
    """A plan that meets the demand is valid; one that does not has exactly that violation."""
    assert paper(kept, goal) == []
    complains(paper(broken, goal), violation)


def test_a_lost_relay_takes_those_behind_it_along() -> None:
    """`far` is reached over `near` and lost with it; with a cable of its own it survives."""
    goal = {"survive": 1}
    both = {"near": "ab", "far": "ab"}
    lost = r"class '{}' must be on 1 devices when near is lost to survive, got 0"
    complains(paper(both, goal), lost.format("a"), lost.format("b"))
    cable = {"between": ["gateway", "far"], "bandwidth_mbps": 4, "latency_ms": 3}
    links = [*fleet_data()["links"], cable | {"latency_ms": 2}]
    # 2000 + 800 / 4 and 2000 + 256 / 4.
    assert paper(both, goal, powered(links=links), travel_us=TRAVEL_US | {"far": (2200, 2064)}) == []
    assert paper(both | {"gateway": "ab"}, goal) == []


def test_an_unknown_device_is_an_input_error() -> None:
    """The goal of the plan names a board that the fleet lacks."""
    with pytest.raises(InputError, match=r"`pin`: 'nea' is not a device of the fleet; did you mean 'near'\?"):
        paper({"near": "ab"}, {"pin": {"a": ["nea"]}})


# --- energy


def test_the_energy_limit_holds_for_all_devices_together() -> None:
    """2.5 W x 29 us + 1 W x 29 us = 101.5 uJ: within 0.1015 mJ, beyond 0.1014."""
    both = {"near": "a", "far": "b"}
    assert paper(both, {"max_energy_mj": 0.1015}) == []
    complains(paper(both, {"max_energy_mj": 0.1014}), r"energy must be at most 0\.1014 mJ, got 0\.101500 mJ")


def test_an_unknown_power_cannot_be_planned_with() -> None:
    """`gateway` and `far` state no power: in use they break the energy limit, idle they do not."""
    known: Json = {"far__energy_mj": None, "gateway__energy_mj": None}
    goal = {"max_energy_mj": 1000}
    unknown = "{}: active_power_w must be known to plan with energy, got none"
    complains(paper({"near": "a", "far": "ab"}, goal, fleet(), **known), unknown.format("far"))
    complains(paper({"gateway": "a", "near": "ab"}, goal, fleet(), **known), unknown.format("gateway"))
    assert paper({"near": "ab"}, goal, fleet()) == []
    assert paper({"near": "a", "far": "ab"}, {}, fleet(), **known) == []


# --- precision


def test_a_precision_has_its_memory_and_its_retention() -> None:
    """At int8, 110 params take a byte each; class a keeps 0.8."""
    goal = {"min_retention": 0.5}
    both = precise("float32", "int8")
    kept: Json = {"near__retention": {"a": 0.8, "b": 0.5}}
    assert paper({"near": "ab"}, goal, both, lossy(), **INT8, **kept) == []
    assert paper({"near": "ab"}, goal, both, lossy(), near__precision="float32") == []
    complains(
        paper({"near": "ab"}, goal, both, lossy(), **INT8 | {"near__memory_bytes": 1477}, **kept),
        "near: memory_bytes must be 1147, got 1477",
    )
    complains(
        paper({"near": "ab"}, goal, both, lossy(), **INT8),
        r"near: retention of class 'a' must be 0\.800000, got 1\.000000",
        r"near: retention of class 'b' must be 0\.500000, got 1\.000000",
    )


def test_the_floor_holds_for_what_the_precision_leaves() -> None:
    """The whole of class b at int8 retains 0.5, which is less than 0.6."""
    complains(
        paper(
            {"near": "b", "far": "a"},
            {"min_retention": 0.6},
            precise("float32", "int8"),
            lossy(),
            **INT8,
            near__retention={"b": 0.5},
        ),
        r"near: class 'b' must keep at least 0\.600000 of its importance, got 0\.500000",
    )


def test_the_only_precision_of_a_device_need_not_be_named() -> None:
    """`near` has int8 alone, so a plan without a precision means int8, with its 0.8 and 0.5."""
    goal = {"min_retention": 0.5}
    kept: Json = {"near__retention": {"a": 0.8, "b": 0.5}}
    for named in (INT8, INT8 | {"near__precision": None}):
        assert paper({"near": "ab"}, goal, precise("int8"), lossy(), **named, **kept) == []
        complains(
            paper({"near": "ab"}, {"min_retention": 0.6}, precise("int8"), lossy(), **named, **kept),
            r"near: class 'b' must keep at least 0\.600000 of its importance, got 0\.500000",
        )


def test_the_precision_is_one_that_the_device_has() -> None:
    """float16 is not one of the device's two; of two, one must be named."""
    choices = r"\[\(8, 'float32'\), \(8, 'int8'\)\]"
    for precision, shown in (("float16", "'float16'"), (None, "None")):
        complains(
            paper({"near": "ab"}, {}, precise("float32", "int8"), lossy(), near__precision=precision),
            rf"near: embed_dim and precision must be one of {choices}, got \(8, {shown}\)",
        )


# --- shared links


def test_a_shared_link_makes_messages_wait() -> None:
    """`near` and `far` share the first hop: each waits for the other's 800 bit and 256 bit at 8 Mbit/s."""
    first, second = fleet_data()["links"]
    shared = powered(links=[first | {"shared": True}, second])
    waits = {"near": (1200, 1064), "far": (3300, 3096)}
    assert paper({"near": "a", "far": "b"}, {}, shared, travel_us=waits) == []
    violations = paper({"near": "a", "far": "b"}, {}, shared)
    complains(
        violations,
        "near: send_us must be 1200, got 1100",
        "near: return_us must be 1064, got 1032",
        "far: send_us must be 3300, got 3200",
        "far: return_us must be 3096, got 3064",
    )
    # A device alone on the link does not wait.
    assert paper({"near": "ab"}, {}, shared) == []
