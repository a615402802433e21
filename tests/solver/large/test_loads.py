"""Loads of devices: what is left, what a device may take, and what it takes, by direct recomputation."""

import dataclasses

import numpy as np
import pytest

from planner.rules.demands import demands_of
from planner.schema import Fleet, Goal
from planner.solver.large.loads import Loads
from planner.solver.problem.instance import NEVER
from planner.solver.problem.subsets import mask_of
from tests.helpers.many_classes import empty_loads, large, loads_of
from tests.helpers.placements import names_of, relays_of

NAMES = ("pin", "forbid", "together", "apart", "survive", "all")


def filled(name: str, seed: int) -> Loads:
    """Return the loads of a goal, partly filled."""
    return fill(empty_loads(name, 13), seed)


def fill(loads: Loads, seed: int) -> Loads:
    """Let devices take random atoms that they may take."""
    rng = np.random.default_rng(seed)
    for _ in range(40):
        device, atom = int(rng.integers(len(loads.classes))), int(rng.integers(len(loads.fleet.atoms)))
        if loads.left[atom] > 0 and loads.may_take(device, atom):
            loads.set(device, loads.with_atom(device, atom))
    return loads


@pytest.mark.parametrize("name", NAMES)
def test_loads_are_consistent(name: str) -> None:
    """Copies left of each atom, latencies and units follow from the classes of the devices."""
    loads = filled(name, 0)
    fleet = loads.fleet
    for a, atom in enumerate(fleet.atoms):
        num_on = sum(set(atom) <= set(classes) for classes in loads.classes)
        assert num_on == sum(bool(set(atom) & set(classes)) for classes in loads.classes)
        assert loads.left[a] == fleet.copies - num_on
    for device, classes in enumerate(loads.classes):
        (sub_model,) = loads.cache.sub_models([(fleet.groups[device], classes)])
        assert loads.latency_us[device] == sub_model.latency_us
        if classes and sub_model.latency_us < NEVER:
            assert (loads.kept[device] == loads.cache.kept(sub_model)).all()
        else:
            assert not loads.kept[device].any()
    assert [p.classes for p in loads.placed()] == [classes for classes in loads.classes if classes]


def relayed_loads(seed: int) -> Loads:
    """Return loads of a fleet with cameras behind a relay, where each class must survive a loss, partly filled."""
    profile, _ = large(13)
    device = {"memory_budget": 2**20, "runtime_overhead": 0, "macs_per_second": 1e8}
    devices = [device | {"name": name} for name in ("hub", "relay", "pi")] + [device | {"name": "cam", "count": 3}]
    link = {"bandwidth_mbps": 200, "latency_ms": 0.01}
    links = [{"between": pair} | link for pair in (("hub", "relay"), ("hub", "pi"), ("relay", "cam"))]
    fleet = Fleet.model_validate({"aggregator": "hub", "devices": devices, "links": links})
    return fill(loads_of(profile, fleet, Goal(survive=1, min_retention=0.5)), seed)


@pytest.mark.parametrize("name", [*NAMES, "relayed"])
def test_a_device_may_take_what_the_demands_allow(name: str) -> None:
    """A device may take an atom that it has not, if no demand is broken and no loss takes both copies."""
    allowed = refused = 0
    for seed in range(3):
        loads = relayed_loads(seed) if name == "relayed" else filled(name, seed)
        fleet, instance = loads.fleet, loads.fleet.instance
        demands = demands_of(instance.profile, instance.fleet, instance.goal)
        of_device, relays = dataclasses.replace(demands, pinned={}, survive=0), relays_of(instance)
        for device, device_name in enumerate(fleet.names):
            lost = {device_name, *relays[device_name]} if fleet.copies > 1 else {device_name}
            for a, atom in enumerate(fleet.atoms):
                classes = loads.with_atom(device, a)
                others = [
                    {fleet.names[d], *relays[fleet.names[d]]} if fleet.copies > 1 else {fleet.names[d]}
                    for d, there in enumerate(loads.classes)
                    if set(atom) <= set(there)
                ]
                broken = list(of_device.violations({device_name: names_of(instance, mask_of(classes))}, {}))
                expected = not broken and atom[0] not in loads.classes[device] and not any(lost & o for o in others)
                assert loads.may_take(device, a) == expected, (device_name, atom)
                allowed, refused = allowed + expected, refused + (not expected)
    assert allowed > 30
    assert refused > 20


def test_what_is_forgotten_is_remembered() -> None:
    """While an atom is forgotten on a device, another may take it; afterwards everything is as before."""
    loads = filled("survive", 1)
    device = next(d for d, classes in enumerate(loads.classes) if classes)
    atom = loads.atoms(loads.classes[device])[0]
    others = range(len(loads.classes))
    before = [loads.may_take(d, atom) for d in others]
    loads.forget(device, atom)
    during = [loads.may_take(d, atom) for d in others]
    loads.remember(device, atom)
    assert [loads.may_take(d, atom) for d in others] == before
    assert sum(during) >= sum(before)


def test_copies_are_independent() -> None:
    """Changes of a copy leave the original alone, until it takes them over."""
    loads = filled("together", 0)
    before, copy = (list(loads.classes), loads.left.tolist()), loads.copy()
    for device in range(len(copy.classes)):
        copy.set(device, ())
    assert (list(loads.classes), loads.left.tolist()) == before
    assert not any(copy.classes)
    loads.take_over(copy)
    assert (loads.classes, loads.left.tolist()) == (copy.classes, copy.left.tolist())


def test_guesses_are_upper_bounds() -> None:
    """No device serves more atoms in time than is guessed, and the guess is not always all of them."""
    loads = empty_loads("latency", 13)
    fleet, hardness = loads.fleet, loads.fleet.hardness()
    atoms = sorted(range(len(fleet.atoms)), key=lambda a: -hardness[fleet.atoms[a][0]])
    reached = []
    for device in (0, 1, 5, 8):
        counts = [tuple(sorted(c for a in atoms[:n] for c in fleet.atoms[a])) for n in range(1, len(atoms) + 1)]
        latencies = loads.latencies([(device, classes) for classes in counts])
        for target_us in (latencies[0] // 4, latencies[0], latencies[-1]):
            num_served = sum(latency_us <= target_us for latency_us in latencies)
            guess = loads.guess(device, atoms, target_us)
            assert num_served <= guess
            reached.append(guess == len(atoms))
    assert not all(reached)
    assert any(reached)
