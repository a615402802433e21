"""Instances against the rules: allowed class subsets, latency, energy and floors, all computed by names."""

import dataclasses

import numpy as np
import pytest

from planner.errors import InputError
from planner.rules.cost import energy_uj, retention, transfers_us
from planner.rules.demands import demands_of
from planner.rules.floors import RETENTION_TOLERANCE
from planner.solver.problem.build import build_instance
from tests.helpers.goals import floored
from tests.helpers.placements import names_of, random_placement
from tests.helpers.varied_instances import VARIED, varied, varied_instance

SEEDS = VARIED[:60]


def test_allowed_subsets_are_those_that_break_no_demand() -> None:
    """For every device and class subset, `allowed` agrees with the demands by name."""
    seen = set()
    for seed in SEEDS:
        instance = varied_instance(seed)
        demands = demands_of(instance.profile, instance.fleet, instance.goal)
        masks = np.arange(2**instance.num_classes)
        member = (masks[:, None] >> np.arange(instance.num_classes) & 1).astype(bool)
        for g, group in enumerate(instance.groups):
            allowed = instance.allowed(g, member)
            for name in group.names:
                pinned = {name: demands.pinned[name]} if name in demands.pinned else {}
                of_device = dataclasses.replace(demands, pinned=pinned, survive=0)
                for mask in masks.tolist():
                    broken = list(of_device.violations({name: names_of(instance, mask)}, {}))
                    assert bool(allowed[mask]) == (not broken), (seed, name, mask, broken)
                    seen.add((bool(pinned), bool(broken), bool(instance.together), bool(instance.apart)))
    assert len(seen) >= 10


@pytest.mark.parametrize("first", range(0, len(SEEDS), 20))
def test_latency_and_energy_equal_the_rules(first: int) -> None:
    """The fleet's latency and energy of random placements are those of `rules.cost`."""
    shared = 0
    for seed in SEEDS[first : first + 20]:
        instance, rng = varied_instance(seed), np.random.default_rng(seed)
        if not instance.options:
            continue
        for _ in range(8):
            placed = list(random_placement(instance, rng).values())
            times_us = transfers_us(instance.fleet, [p.option.width_cost for p in placed])
            compute_us = [instance.compute_us(p.option, p.kept) for p in placed]
            slowest_us = max(send + us + back for (send, back), us in zip(times_us, compute_us, strict=True))
            assert instance.slowest_us(placed) == slowest_us
            fusion_us = instance.fusion_us(sum(p.option.embed_dim for p in placed))
            assert instance.fleet_latency_us(placed) == slowest_us + fusion_us
            shared += slowest_us > max(p.option.alone_us + us for p, us in zip(placed, compute_us, strict=True))
            if instance.goal.objective == "energy" or instance.max_energy is not None:
                powers = [p.option.device.active_power_w or 0.0 for p in placed]
                energies = [energy_uj(power, us) for power, us in zip(powers, compute_us, strict=True)]
                # Powers are stated to a tenth of a watt, so nothing is rounded.
                assert instance.energy(placed) == instance.energy_scale * sum(energies)
    assert shared >= 5


def test_floors_are_those_of_the_check() -> None:
    """Sub-models that meet the floors are accepted by the check, and those above the floors meet them."""
    met = missed = 0
    for seed in SEEDS[::3]:
        instance, rng = varied_instance(seed), np.random.default_rng(seed)
        if not instance.options:
            continue
        for _ in range(10):
            for p in random_placement(instance, rng).values():
                heads, groups = (instance.units.blocks(p.kept, heads=heads) for heads in (True, False))
                at, profile = p.option.width_cost, instance.profile
                margin = min(
                    retention(profile, profile.classes[c], p.option.embed_dim, heads, groups, at.precision)
                    - instance.floors[c]
                    for c in p.classes
                )
                if instance.meets_floors(p.option, p.classes, p.kept):
                    assert margin >= -RETENTION_TOLERANCE
                    met += 1
                else:
                    assert margin < 0
                    missed += 1
    assert met > 30
    assert missed > 30


def test_units_and_their_positions_round_trip() -> None:
    """Positions of kept units become heads and groups of each block, and positions again."""
    units = varied_instance(0).units
    rng = np.random.default_rng(0)
    for _ in range(10):
        kept = tuple(np.flatnonzero(rng.random(len(units)) < 0.5).tolist())
        chosen = {
            (is_head, l, i)
            for is_head in (True, False)
            for l, block in enumerate(units.blocks(kept, heads=is_head))
            for i in block
        }
        assert units.positions(chosen) == kept
        assert units.positions({*chosen, (True, 99, 0)}) == kept


def test_an_unknown_power_is_refused_where_energy_counts() -> None:
    """A device without a power cannot be planned with for energy."""
    profile, fleet, _ = varied(4)
    devices = [d | {"active_power_w": None} for d in fleet.model_dump(mode="json")["devices"]]
    fleet = type(fleet).model_validate(fleet.model_dump(mode="json") | {"devices": devices})
    goal = floored(objective="energy", max_latency_ms=1000)
    with pytest.raises(InputError, match="active_power_w must be known to plan with energy, got none"):
        build_instance(profile, fleet, goal)
    assert build_instance(profile, fleet, floored()).options
