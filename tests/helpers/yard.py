"""A yard of five devices over Wi-Fi, a wire and a relay, and its scenarios."""

import json
from typing import Any

from planner.schema import Fleet, Goal
from planner.whatif import Case, ChangeRequest, ExpandedScenario, axes_of, expand
from planner.whatif.changes import apply_changes
from tests.helpers import pencil

PROFILE = pencil.profile()
MIB = 1024**2

WIFI = {"bandwidth_mbps": 20.0, "latency_ms": 2.0, "shared": True}
WIRE = {"bandwidth_mbps": 90.0, "latency_ms": 0.5}


def fleet(**changes: Any) -> Fleet:
    """Return a gateway, two boards on one Wi-Fi, a box on a wire, and a shed behind the box."""
    data: dict[str, Any] = {
        "name": "yard",
        "aggregator": "gateway",
        "devices": [
            {"name": "gateway", "macs_per_second": 3e6, "memory_budget": 2000, "runtime_overhead": 1000},
            {"name": "pi", "count": 2, "kind": "board", "memory_budget": 3001, "runtime_overhead": 1000},
            {"name": "box.a=b", "kind": "board", "memory_budget": 4000, "active_power_w": 2.5},
            {"name": "shed", "macs_per_second": 5e6, "memory_budget": 5000},
        ],
        "links": [
            {"between": ["gateway", "pi"], **WIFI},
            {"between": ["gateway", "box.a=b"], **WIRE},
            {"between": ["box.a=b", "shed"], **WIRE},
        ],
    }
    return Fleet.model_validate_json(json.dumps(data | changes))


FLEET = fleet()
GOAL = Goal(pin={"a": ("pi",)}, forbid={"b": ("pi-1",)}, leave_out=("shed",))


def scenarios(on: Fleet = FLEET, goal: Goal | None = None, cross: bool = False, **flags: Any) -> list[ExpandedScenario]:
    """Return the expanded scenarios of the flags."""
    return expand(axes_of(ChangeRequest(**flags), on), Case.of(PROFILE, on, goal or Goal()), cross)


def names(expanded: list[ExpandedScenario]) -> list[str]:
    """Return the names of scenarios."""
    return [one.scenario.name for one in expanded]


def after(on: Fleet = FLEET, goal: Goal | None = None, cross: bool = True, **flags: Any) -> Case:
    """Return the last combination of the flags, with all changes together."""
    last = scenarios(on, goal, cross, **flags)[-1].scenario
    return apply_changes(Case.of(PROFILE, on, goal or Goal()), last.changes)


def devices(case: Case) -> dict[str, dict[str, Any]]:
    """Return the entries of a fleet as in its file, by name."""
    return {d.name: d.model_dump(exclude={"name"}, exclude_defaults=True) for d in case.fleet.devices}


def links(case: Case) -> set[tuple[str, str, float, object]]:
    """Return each link's ends, bandwidth and medium."""
    return {(*link.between, link.bandwidth_mbps, link.shared) for link in case.fleet.links}
