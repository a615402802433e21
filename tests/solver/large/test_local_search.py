"""Local search on plans for many classes: never worse, and still a plan."""

import pytest

from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.construct import place_rest
from planner.solver.large.loads import Loads
from planner.solver.large.local_search import close_devices, local_search
from planner.solver.problem.clock import Clock
from planner.solver.problem.placement import is_plan
from tests.helpers.many_classes import empty_loads

NAMES = ("latency", "survive", "pin", "forbid", "together", "apart", "all")


def spread(name: str, num_classes: int = 13) -> tuple[Loads, list[int]]:
    """Return loads with every class placed, one device after the other as the demands allow, and all devices."""
    loads = empty_loads(name, num_classes)
    devices = list(range(len(loads.classes)))
    for device, pinned in enumerate(loads.fleet.pinned):
        loads.set(device, pinned)
    turn = 0
    for atom in [a for a in range(len(loads.fleet.atoms)) for _ in range(loads.fleet.copies)]:
        for device in [*devices[turn:], *devices[:turn]]:
            if loads.left[atom] > 0 and loads.may_take(device, atom):
                loads.set(device, loads.with_atom(device, atom))
                turn = (device + 1) % len(devices)
                break
    assert place_rest(loads, devices, Clock(600))
    return loads, devices


@pytest.mark.parametrize("name", NAMES)
def test_it_is_never_worse(name: str) -> None:
    """Whenever it reports progress, the slowest device is faster than before; all classes stay placed, as demanded."""
    loads, devices = spread(name)
    slowest_us = [int(loads.latency_us.max())]
    assert is_plan(loads.fleet.instance, loads.placed())
    for _ in local_search(loads, devices, Clock(0.25, deterministic=True)):
        slowest_us.append(int(loads.latency_us.max()))
        assert loads.left.max() <= 0
        assert is_plan(loads.fleet.instance, loads.placed())
    assert slowest_us == sorted(set(slowest_us), reverse=True)
    # From classes that nobody chose, there is much to gain.
    assert slowest_us[-1] < 0.95 * slowest_us[0]
    assert is_plan(loads.fleet.instance, loads.placed())


def test_a_plan_good_enough_is_left_alone() -> None:
    """Nothing is changed if the slowest device is fast enough already."""
    loads, devices = spread("latency")
    before = list(loads.classes)
    assert not list(local_search(loads, devices, Clock(60), enough_us=int(loads.latency_us.max())))
    assert loads.classes == before


@pytest.mark.parametrize("by_energy", [False, True])
@pytest.mark.parametrize("name", ["devices", "energy", "pin", "survive"])
def test_closing_devices_never_breaks_the_target(name: str, by_energy: bool) -> None:
    """Within a target that held before, fewer devices are used, or less energy; it still is a plan and in time."""
    loads, devices = spread(name)
    instance = loads.fleet.instance
    target_us = int(loads.latency_us.max()) + ClassBounds(instance).longest_us
    used, energy = sum(map(bool, loads.classes)), instance.energy(loads.placed())
    close_devices(loads, devices, target_us, by_energy, Clock(600))
    assert int(loads.latency_us.max()) <= target_us
    assert loads.left.max() <= 0
    assert is_plan(instance, loads.placed())
    if by_energy:
        assert instance.energy(loads.placed()) <= energy
    else:
        assert sum(map(bool, loads.classes)) < used


def test_a_tight_target_keeps_its_devices() -> None:
    """All devices stay in use if none can take more in time."""
    loads, devices = spread("latency")
    before = list(loads.classes)
    close_devices(loads, devices, 0, False, Clock(600))
    assert loads.classes == before
