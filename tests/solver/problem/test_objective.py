"""Objective functions, against the pencil fleet by hand and against the rules."""

import numpy as np
import pytest

from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from tests.helpers.goals import floored
from tests.helpers.paper_plans import COMPUTE_US, FUSION_US, POWERS_W, TRAVEL_US, powered
from tests.helpers.pencil import profile
from tests.helpers.placements import random_placement
from tests.helpers.varied_instances import VARIED, varied_instance


def whole_models(goal: Goal, *names: str) -> tuple[Instance, list[PlacedSubModel]]:
    """Return the pencil instance, and whole models of embed dim 8 on some devices."""
    instance = build_instance(profile(), powered(), goal)
    options = {option.device.name: option for option in instance.options if option.embed_dim == 8}
    return instance, [PlacedSubModel(options[name], (0, 1), tuple(range(len(instance.units)))) for name in names]


@pytest.mark.parametrize("names", [("gateway",), ("near", "far"), ("gateway", "near", "far")], ids="-".join)
def test_objectives_by_hand(names: tuple[str, ...]) -> None:
    """Latency is the slowest device and the fusion, energy the sum of powers times compute times."""
    instance, placed = whole_models(floored(objective="energy", max_latency_ms=10), *names)
    slowest_us = max(COMPUTE_US[name] + sum(TRAVEL_US[name]) for name in names)
    energy = instance.energy_scale * sum(POWERS_W[name] * COMPUTE_US[name] for name in names)
    values = {
        name: ObjectiveFunction(instance, name).value_of(placed)
        for name in ("latency", "accuracy", "energy", "devices")
    }
    assert values == {
        "latency": slowest_us + FUSION_US[len(names)],
        "accuracy": slowest_us + FUSION_US[len(names)],
        "energy": energy,
        "devices": len(names),
    }
    compute_us = [COMPUTE_US[name] for name in names]
    assert ObjectiveFunction(instance).bottleneck_us([p.option for p in placed], compute_us) == slowest_us


def test_limits_make_an_objective_infinite() -> None:
    """At the limit a placement has its value, beyond it none; least latency ignores the latency limit."""
    latency_us = COMPUTE_US["gateway"] + FUSION_US[1]
    energy_mj = POWERS_W["gateway"] * COMPUTE_US["gateway"] / 1000
    for less_us, less_mj, expected in ((0, 0.0, 1), (1, 0.0, NEVER), (0, 0.001, NEVER)):
        goal = floored(
            objective="devices", max_latency_ms=(latency_us - less_us) / 1000, max_energy_mj=energy_mj - less_mj
        )
        instance, placed = whole_models(goal, "gateway")
        assert ObjectiveFunction(instance, "devices").value_of(placed) == expected
    instance, placed = whole_models(floored(max_latency_ms=latency_us / 2000), "gateway")
    assert ObjectiveFunction(instance).value_of(placed) == latency_us


def test_energy_counts_where_it_is_minimised_or_limited() -> None:
    """`with_energy` says whether the compute times of all devices matter, or only the slowest's."""
    limited = build_instance(profile(), powered(), floored(max_energy_mj=1.0))
    free = build_instance(profile(), powered(), floored())
    assert ObjectiveFunction(limited).with_energy
    assert ObjectiveFunction(free, "energy").with_energy
    assert not ObjectiveFunction(free).with_energy


def test_objectives_of_random_placements_are_the_instances() -> None:
    """Latency and energy are those of the instance, unless a limit is broken."""
    compared = 0
    for seed in VARIED[:40]:
        instance, rng = varied_instance(seed), np.random.default_rng(seed)
        for _ in range(4 if instance.options else 0):
            placed = list(random_placement(instance, rng).values())
            latency_us, energy = instance.fleet_latency_us(placed), instance.energy(placed)
            within = instance.max_energy is None or energy <= instance.max_energy
            assert ObjectiveFunction(instance).value_of(placed) == (latency_us if within else NEVER)
            within = within and latency_us <= (instance.goal.max_latency_us or NEVER)
            assert ObjectiveFunction(instance, "energy").value_of(placed) == (energy if within else NEVER)
            compared += within
    assert compared > 20
