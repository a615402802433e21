"""Fleets with more memory or one device more, by hand."""

from planner.rules.demands import demands_of
from planner.solver.infeasible.changed_fleet import goal_for_single_devices, with_larger_budget, with_one_more
from planner.solver.problem.build import build_instance
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, fleet_data, profile


def test_more_memory_goes_to_one_device_of_a_count() -> None:
    """`pi-2` gets the memory; the others of its entry and their links stay as they are."""
    pi = fleet_data()["devices"][1] | {"name": "pi", "count": 3}
    links = [{"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}]
    on = fleet(devices=[fleet_data()["devices"][0], pi], links=links)
    more = with_larger_budget(on, "pi-2", "memory", 7)
    assert {d.name: d.memory_budget for d in more.members} == {
        "gateway": 2000,
        "pi-1": 2000,
        "pi-2": 2007,
        "pi-3": 2000,
    }
    assert [link.between for link in more.links] == [("gateway", f"pi-{i}") for i in (1, 2, 3)]


def test_an_added_device_comes_with_its_links() -> None:
    """A new device has the links of the one it is like, and a shared link stays one medium."""
    on = fleet(links=[link | {"shared": True} for link in fleet_data()["links"]])
    more = with_one_more(on, "near")
    assert [m.name for m in more.members] == ["gateway", "near", "far", "near+1"]
    ends = {frozenset(link.between): link.shared for link in more.links}
    assert ends[frozenset({"gateway", "near+1"})] == ends[frozenset({"gateway", "near"})]
    assert ends[frozenset({"near+1", "far"})] == ends[frozenset({"near", "far"})]
    assert ends[frozenset({"gateway", "near"})] != ends[frozenset({"near", "far"})]


def test_names_of_counted_entries_become_those_of_their_devices() -> None:
    """A goal for the single devices pins, forbids and leaves out each of them, and asks for the least latency."""
    pi = fleet_data()["devices"][1] | {"name": "pi", "count": 2}
    links = [{"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}]
    on = fleet(devices=[fleet_data()["devices"][0], pi], links=links)
    goal = floored(pin={"a": ("pi",)}, forbid={"b": ("pi-2",)}, leave_out=("gateway",), objective="devices")
    single = goal_for_single_devices(build_instance(profile(), on, goal))
    assert single == floored(pin={"a": ("pi-1", "pi-2")}, forbid={"b": ("pi-2",)}, leave_out=("gateway",))
    # It means the same for the fleet of single devices.
    roomier = with_larger_budget(on, "pi-1", "memory", 0)
    assert demands_of(profile(), roomier, single) == demands_of(profile(), on, goal)
