"""The cost table: against plain loops, against `rules.cost`, and a new cost term that every consumer obeys."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.arrays import Bools
from planner.solver.exact.warm_start import fingerprint
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.cost_table import CostTable, UnitSet
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import Option
from planner.solver.second_stage.fill import fill
from planner.solver.submodels import knapsack
from planner.solver.submodels.lagrangian import LagrangianHeuristic
from planner.solver.submodels.relaxation import Relaxation
from planner.solver.submodels.single_class import single_class_us
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.sub_model_enumeration import all_kept, instance_of, kept_rows, subsets


def ticks_of(costs: CostTable, kept: Iterable[int]) -> int:
    """Return the ticks of some units, by a plain loop."""
    chosen = set(kept)
    ticks = costs.fixed_ticks + sum(int(costs.unit_ticks[u]) for u in chosen)
    for unit_set in costs.unit_sets:
        if chosen & set(unit_set.members.tolist()):
            ticks += unit_set.charge_ticks
    return ticks


def grains_of(costs: CostTable, kept: Iterable[int]) -> list[int]:
    """Return the grains of some units of each budget, by a plain loop."""
    chosen = set(kept)
    peak = 0
    for unit_set in costs.unit_sets:
        pairs = zip(unit_set.members.tolist(), unit_set.peak_grains.tolist(), strict=True)
        peak = max(peak, sum(grains for u, grains in pairs if u in chosen))
    memory, *others = (sum(weights[u] for u in chosen) for weights in costs.unit_grains.tolist())
    return [memory + peak, *others]


def fits(toy: Option, kept: Iterable[int]) -> bool:
    """Return whether some units are within all budgets, by a plain loop."""
    used = grains_of(toy.costs, kept)
    return all(grains <= free for grains, free in zip(used, toy.free_grains.tolist(), strict=True))


@st.composite
def cost_tables(draw: st.DrawFn) -> CostTable:
    """Draw a table of up to 7 units and 4 unit sets, which may overlap."""
    num_units = draw(st.integers(1, 7))
    numbers = st.integers(0, 10**6)

    def of_units(n: int) -> st.SearchStrategy[list[int]]:
        return st.lists(numbers, min_size=n, max_size=n)

    unit_sets = []
    for _ in range(draw(st.integers(0, 4))):
        members = sorted(draw(st.sets(st.integers(0, num_units - 1), min_size=1)))
        peaks = draw(of_units(len(members)))
        unit_sets.append(UnitSet(np.array(members), draw(numbers), np.array(peaks, dtype=np.int64)))
    return CostTable(
        ticks_per_us=draw(st.integers(1, 1000)),
        fixed_ticks=draw(numbers),
        unit_ticks=np.array(draw(of_units(num_units)), dtype=np.int64),
        grains_per_byte=draw(st.integers(1, 4)),
        unit_grains=np.array([draw(of_units(num_units)) for _ in range(draw(st.integers(1, 2)))], dtype=np.int64),
        unit_sets=tuple(unit_sets),
    )


# --- plain loops


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cost_tables())
def test_costs_equal_plain_loops(costs: CostTable) -> None:
    """Time and memory of every set of units equal a loop over units and unit sets."""
    num_units = len(costs.unit_ticks)
    rows, kept = kept_rows(num_units), all_kept(num_units)
    assert costs.compute_us(rows).tolist() == [math.ceil(ticks_of(costs, k) / costs.ticks_per_us) for k in kept]
    assert costs.grains(rows).tolist() == [grains_of(costs, k) for k in kept]
    assert costs.max_ticks == ticks_of(costs, range(num_units))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cost_tables())
def test_charge_shares_are_at_most_the_charges(costs: CostTable) -> None:
    """Whatever is kept, its shares are at most its charges, and equal to them for the whole model."""
    for kept in all_kept(len(costs.unit_ticks)):
        charges = ticks_of(costs, kept) - costs.fixed_ticks - sum(costs.unit_ticks[list(kept)].tolist())
        assert costs.charge_shares[list(kept)].sum() <= charges * (1 + 1e-12) + 1e-9
    assert costs.charge_shares.sum() == pytest.approx(costs.charges.sum())


# --- the rules


@pytest.mark.parametrize("seed", range(6))
def test_costs_equal_the_rules(seed: int) -> None:
    """Compute time and memory of random units of a larger model equal `rules.cost`; so does what fits."""
    profile = random_profile(seed, depth=3, num_heads=3, num_groups=5, widths=(8, 4), kinds=("a",), penalties=True)
    fleet = random_fleet(profile, seed, num_devices=4, tightness=0.6, choices=True)
    instance = build_instance(profile, fleet, floored())
    rng = np.random.default_rng(seed)
    fitting = 0
    # What every sub-model keeps: of the 3 heads of the last block, whose units are the last 8, one.
    anchor = len(instance.units) - 8 + int(np.array(profile.importance.heads)[:, -1].sum(axis=0).argmax())
    for option in instance.options:
        costs, at = option.costs, option.width_cost
        kept: Bools = rng.random((25, len(instance.units))) < rng.random((25, 1))
        kept[:, anchor] = True
        sub_models = [np.flatnonzero(row).tolist() for row in kept]
        assert costs.compute_us(kept).tolist() == [instance.compute_us(option, units) for units in sub_models]
        grains = costs.grains(kept)
        within = (grains <= option.free_grains).all(axis=1)
        assert within.tolist() == [instance.fits(option, units) for units in sub_models]
        fitting += int(within.sum())
        least_bytes = option.device.memory_bytes(at, [0, 0, 1], [0, 0, 0]) - at.width.head_activation_bytes
        for units, (grain,) in zip(sub_models, grains.tolist(), strict=True):
            beyond_bytes = instance.memory_bytes(option, units) - least_bytes
            # Both were rounded up to whole bytes.
            assert abs(beyond_bytes - grain / costs.grains_per_byte) < 1
    assert 20 < fitting < 25 * len(instance.options) - 20


# --- a new cost term is one change


def with_toy_term(instance: Instance, option: Option) -> tuple[Instance, Option]:
    """Return an instance with one option, where block 0's heads and groups share a charge and activations."""
    costs = option.costs
    members = np.flatnonzero(instance.units.block == 0)
    peaks = np.full(len(members), 1 + int(costs.unit_grains.mean()) // 2)
    term = UnitSet(members, int(costs.unit_ticks.sum()) // 3, peaks)
    toy = dataclasses.replace(option, costs=dataclasses.replace(costs, unit_sets=(*costs.unit_sets, term)))
    return dataclasses.replace(instance, options=(toy,)), toy


def toy_cheapest_us(instance: Instance, toy: Option, classes: tuple[int, ...]) -> int | None:
    """Return the least compute time [us] by enumeration with plain loops; None if there is no sub-model."""
    times = [
        math.ceil(ticks_of(toy.costs, kept) / toy.costs.ticks_per_us)
        for kept in all_kept(len(instance.units))
        if set(instance.units.always_kept) <= set(kept)
        and fits(toy, kept)
        and instance.meets_floors(toy, classes, kept)
    ]
    return min(times, default=None)


@pytest.mark.parametrize("seed", [2, 9, 10, 12, 16])
def test_every_consumer_obeys_a_new_term(seed: int) -> None:
    """Knapsack, relaxation, single-class bound and heuristic follow a table with one more unit set."""
    changed = 0
    for option in instance_of(seed).options[:3]:
        instance, toy = with_toy_term(instance_of(seed), option)
        relaxation, single_us = Relaxation(instance, toy), single_class_us(instance, toy)
        built = LagrangianHeuristic(instance, toy).build(subsets(instance))
        rows = zip(subsets(instance), built.compute_us.tolist(), built.kept, strict=True)
        for classes, built_us, row in rows:
            best_us = toy_cheapest_us(instance, toy, classes)
            exact, bound = knapsack.cheapest(instance, toy, classes, Clock(10)), relaxation.bound(classes)
            assert exact.bound == best_us
            if best_us is None:
                assert built_us == NEVER
                continue
            changed += best_us != toy_cheapest_us(instance, option, classes)
            assert bound is not None
            assert bound.by_count[len(classes) - 1] <= best_us
            assert single_us[list(classes), len(classes) - 1].max() <= best_us
            if built_us < NEVER:
                units = np.flatnonzero(row).tolist()
                assert built_us == math.ceil(ticks_of(toy.costs, units) / toy.costs.ticks_per_us) >= best_us
                assert fits(toy, units)
                assert instance.meets_floors(toy, classes, units)
            check_second_stage(instance, toy, classes, best_us)
    assert changed >= 10


def check_second_stage(instance: Instance, toy: Option, classes: tuple[int, ...], best_us: int) -> None:
    """Assert that filling one and a half times the least time, and the smallest sub-model, obey the toy table."""
    limit_us = best_us * 3 // 2
    filled = fill(toy, instance.units, instance.units.shares[list(classes)].sum(axis=0), limit_us)
    assert filled is not None
    kept = np.flatnonzero(filled).tolist()
    assert ticks_of(toy.costs, kept) <= limit_us * toy.costs.ticks_per_us
    assert fits(toy, kept)
    for budget in range(len(toy.free_grains)):
        smallest = knapsack.smallest(instance, toy, classes, budget, Clock(10)).kept
        assert smallest is not None
        sizes = [
            grains_of(toy.costs, units)[budget]
            for units in all_kept(len(instance.units))
            if set(instance.units.always_kept) <= set(units) and instance.meets_floors(toy, classes, units)
        ]
        assert grains_of(toy.costs, smallest)[budget] == min(sizes)


def test_warm_starts_are_not_shared_across_a_new_term() -> None:
    """An option with one more term, or with other activations, has another fingerprint: no proof is taken over."""
    instance = instance_of(3)
    option = instance.options[0]
    toy = with_toy_term(instance, option)[1]
    first, *others = option.costs.unit_sets
    larger = dataclasses.replace(first, peak_grains=first.peak_grains + 1)
    costs = dataclasses.replace(option.costs, unit_sets=(larger, *others))
    hashes = {fingerprint(instance.units, o) for o in (option, toy, dataclasses.replace(option, costs=costs))}
    assert len(hashes) == 3
