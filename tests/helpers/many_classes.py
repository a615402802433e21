"""Many classes on ten devices of four kinds, and goals with every demand."""

from functools import cache

from planner.schema import Fleet, Goal, Profile
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.loads import FleetData, Loads
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.submodels.cache import SubModelCache
from tests.helpers.accuracy import predictable
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_profile


@cache
def large(num_classes: int) -> tuple[Profile, Fleet]:
    """Return many classes on a gateway and 9 devices of 3 kinds; two kinds on one Wi-Fi, one with two precisions."""
    of = random_profile(
        num_classes, num_classes=num_classes, num_groups=8, widths=(8, 4), penalties=True, depth=3, num_heads=3
    )
    of = predictable(of, num_classes)
    device = {"memory_budget": 2**20, "runtime_overhead": 0}
    kinds = [
        device | {"name": "hub", "macs_per_second": 4e8, "active_power_w": 3.0},
        device | {"name": "pi", "count": 4, "macs_per_second": 1e8, "active_power_w": 2.0},
        device | {"name": "cam", "count": 3, "macs_per_second": 6e7, "active_power_w": 1.0},
        device | {"name": "box", "count": 2, "macs_per_second": 2e8, "active_power_w": 5.0},
    ]
    kinds[3]["precision"] = ["float32", "int8"]
    wifi = {"bandwidth_mbps": 200, "latency_ms": 0.01, "shared": "wifi"}
    links = [{"between": ["hub", name]} | wifi for name in ("pi", "cam")]
    links.append({"between": ["hub", "box"], "bandwidth_mbps": 500, "latency_ms": 0.02})
    return of, Fleet.model_validate({"aggregator": "hub", "devices": kinds, "links": links})


GOALS: dict[str, Json] = {
    "latency": {},
    "survive": {"survive": 1},
    "survive two": {"survive": 2, "objective": "devices"},
    "pin": {"pin": {"3": ["pi-2", "box"], "5": ["hub"]}},
    "forbid": {"forbid": {str(c): ["pi", "hub"] for c in range(8)}},
    "together": {"together": [["0", "1", "2"], ["2", "9"], ["4", "11"]]},
    "apart": {"apart": [["0", "1", "2", "3"], ["10", "11"]]},
    "leave out": {"leave_out": ["box", "pi-1"]},
    "energy limit": {"max_energy_mj": 20.0},
    "all": {
        "survive": 1,
        "pin": {"3": ["pi-2"]},
        "forbid": {"4": ["hub"]},
        "together": [["0", "1"]],
        "apart": [["5", "6"]],
        "leave_out": ["cam-3"],
        "max_latency_ms": 50.0,
    },
    "energy": {"objective": "energy", "max_latency_ms": 20.0},
    "devices": {"objective": "devices", "max_latency_ms": 20.0},
    "accuracy": {"objective": "accuracy", "max_latency_ms": 20.0},
}


def empty_loads(name: str, num_classes: int) -> Loads:
    """Return the loads of `large` for one of the goals, with no class on any device."""
    profile, fleet = large(num_classes)
    return loads_of(profile, fleet, floored(**GOALS[name]))


def loads_of(profile: Profile, fleet: Fleet, goal: Goal) -> Loads:
    """Return loads with no class on any device."""
    instance = build_instance(profile, fleet, goal)
    fleet_data = FleetData(instance, ClassBounds(instance))
    return Loads(fleet_data, SubModelCache(instance, Clock(600)), [0] * len(fleet_data.groups))
