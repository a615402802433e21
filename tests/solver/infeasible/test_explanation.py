"""Explanations where no plan exists: the demands to blame and the smallest repairs, all verified."""

from typing import Any

import pytest

from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal
from planner.solver import solve
from planner.units import format_bytes
from tests.helpers.advice import FLOORS, UNITS, blamed, changes, message_of, num_bytes_of, verify
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.pencil import ACCURACY_MODEL, fleet, fleet_data, profile, profile_data

# Empty sub-models are allowed: whether there is a plan is up to the other demands.
FREE: Json = {"min_retention": 0.0}


# --- the reason, by hand


def pis(**changes: Any) -> Fleet:
    """Return the gateway and two boards that are reached directly."""
    gateway, board, _ = fleet_data()["devices"]
    link = {"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}
    gateway |= {"active_power_w": 1.0}
    return fleet(devices=[gateway, board | {"name": "pi", "count": 2} | changes], links=[link])


BLAMED: dict[str, tuple[Fleet, Json, list[str]]] = {
    "pin and forbid": (
        pis(),
        {"pin": {"a": ["pi-1"], "b": ["pi-2"]}, "forbid": {"a": ["pi-1"]}, "survive": 1},
        ["`pin=a=pi-1`", "`forbid=a=pi-1`"],
    ),
    "pin and leave out": (
        pis(),
        {"pin": {"a": ["pi-1", "gateway"]}, "leave_out": ["pi-1"]},
        ["`pin=a=pi-1`", "`leave_out=pi-1`"],
    ),
    "pin a count and forbid one of it": (
        pis(),
        {"pin": {"b": ["pi"]}, "forbid": {"b": ["pi-2"]}, "apart": [["a", "b"]]},
        ["`pin=b=pi`", "`forbid=b=pi-2`"],
    ),
    "together and pins": (
        pis(),
        {"together": [["a", "b"]], "pin": {"a": ["pi-1"]}, "forbid": {"b": ["pi-1"]}, "leave_out": ["gateway"]},
        ["`pin=a=pi-1`", "`forbid=b=pi-1`", "`together=a,b`"],
    ),
    "together and apart": (
        pis(),
        {"together": [["a", "b"]], "apart": [["b", "a"]], "forbid": {"a": ["pi"]}},
        ["`together=a,b`", "`apart=b,a`"],
    ),
    "survive too many": (pis(), {"survive": 3, "pin": {"a": ["pi-1"]}}, ["`survive=3`"]),
    "survive and leave out": (
        pis(),
        {"survive": 2, "leave_out": ["pi-2"], "pin": {"a": ["pi-1"]}},
        ["`leave_out=pi-2`", "`survive=2`"],
    ),
    "survive and apart": (pis(), {"survive": 1, "apart": [["a", "b"]]}, ["`apart=a,b`", "`survive=1`"]),
    # On the boards, which have the power for it, nothing takes less than 2 ms.
    "latency and energy": (
        pis(),
        {"objective": "devices", "max_latency_ms": 1.0, "max_energy_mj": 0.1, "forbid": {"a": ["pi-1"]}},
        ["`max_latency_ms=1`", "`max_energy_mj=0.1`"],
    ),
    "energy": (pis(), {"max_energy_mj": 0.01, "pin": {"a": ["gateway"]}}, ["`max_energy_mj=0.01`"]),
    "floors and energy": (
        pis(),
        {"max_energy_mj": 0.05, "min_retention": 0.9},
        ["`max_energy_mj=0.05`", FLOORS],
    ),
    "floors and a pin": (
        pis(memory_budget=1300),
        {"min_retention": 0.9, "pin": {"b": ["pi-2"]}, "forbid": {"a": ["pi-1"]}},
        ["`pin=b=pi-2`", FLOORS],
    ),
}


@pytest.mark.parametrize("name", BLAMED)
def test_contradicting_demands_are_named(name: str) -> None:
    """Demands that contradict each other are named as settings, others are not."""
    on, goal, names = BLAMED[name]
    message = message_of(profile(), on, Goal.model_validate(FREE | goal))
    assert blamed(message) == names, message
    tail = "cannot be met by this fleet" if len(names) == 1 else "contradict each other on this fleet"
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    assert message.startswith(f"No plan: {joined} {tail}. ")


def test_the_reason_is_a_latency_limit() -> None:
    """An anchor head alone, at width 4, takes 200 + 20 us on the gateway: limit, optimum and repair are stated."""
    message = message_of(profile(), fleet(), Goal(min_retention=0.0, max_latency_ms=0.1))
    assert message.startswith("No plan within 0.1 ms: no plan takes less than 0.220 ms. ")
    assert changes(message) == ["`max_latency_ms=0.22`"]


@pytest.mark.parametrize("objective", ["accuracy", "energy", "devices"])
def test_the_latency_that_would_do_is_named_with_every_objective(objective: str) -> None:
    """The repair of a latency limit is the same for every objective."""
    goal = Goal.model_validate(FREE | {"objective": objective, "max_latency_ms": 0.1})
    on = fleet(devices=[d | {"active_power_w": 1.0} for d in fleet_data()["devices"]])
    of = profile(accuracy_model=ACCURACY_MODEL)
    assert changes(message_of(of, on, goal)) == ["`max_latency_ms=0.22`"]


def test_every_device_left_out() -> None:
    """With every device left out, each one that may serve again is a repair."""
    message = message_of(profile(), pis(), Goal(min_retention=0.0, leave_out=("gateway", "pi")))
    assert {"no `leave_out=gateway`", "no `leave_out=pi`"} <= set(changes(message))


def test_the_reason_is_a_class() -> None:
    """Width 8 takes 1273 bytes for the anchor head; width 4 takes 1138, but cannot retain enough of b in 2 more.

    The anchor head there retains 0.1 x 0.9 of class a, which is the highest floor that works.
    """
    devices = [d | {"memory_budget": 1140} for d in fleet_data()["devices"]]
    message = (
        r"\ANo plan: class 'b' needs at least 1\.2 KiB on any device; the largest budget is 1\.1 KiB \(gateway\)\. "
        r"Smallest change that works: \+0\.\d KiB on \w+, or `min_retention=0\.0[89]\d*`\.\Z"
    )
    with pytest.raises(InfeasibleError, match=message):
        solve(profile(), fleet(devices=devices), floored(min_retention=0.44))


def test_the_reason_is_the_fleet() -> None:
    """The gateway holds either class, but not both."""
    gateway = fleet_data()["devices"][0] | {"memory_budget": 1330}
    message = r"\ANo plan: each class fits on some device, but the 1 devices together cannot hold all 2 of them\. Small"
    with pytest.raises(InfeasibleError, match=message):
        solve(profile(), fleet(devices=[gateway], links=[]), floored(min_retention=0.6))


def test_the_reason_is_the_model() -> None:
    """No width retains any of class a, so no amount of memory helps, and none is named."""
    widths = profile_data()["widths"]
    for width in widths:
        width["embed_retention"][0] = 0.1
    with pytest.raises(InfeasibleError, match=r"\ANo plan: class 'a' ") as caught:
        solve(profile(widths=widths), fleet(), floored())
    assert "MiB" not in str(caught.value)


@pytest.mark.parametrize("name", BLAMED)
def test_the_changes_work(name: str) -> None:
    """Repairs of the contradictions by hand work, and smaller or other changes do not."""
    on, goal, _ = BLAMED[name]
    verify(profile(), on, Goal.model_validate(FREE | goal))


@pytest.mark.parametrize("power", range(0, 46, 3))
def test_sizes_in_messages_are_on_the_safe_side(power: int) -> None:
    """Demands are rounded up and supplies down, at any size."""
    for num_bytes in (2**power, 2**power + 1, 2**power * 4 // 3, 2**power * 997 // 512):
        for up in (False, True):
            number, unit = format_bytes(num_bytes, rounding="up" if up else "down").split()
            stated = num_bytes_of(number, unit)
            assert stated >= num_bytes if up else stated <= num_bytes
            assert abs(stated - num_bytes) <= max(1, UNITS[unit] / 10)
