"""Sub-models that fill a device, against every set of units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.arrays import Bools, Floats
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import Option
from planner.solver.second_stage.fill import fill
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, heavy_heads
from tests.helpers.sub_model_enumeration import SEEDS, SubModelTable, instance_of, kept_rows, table_of


def drawn_values(seed: int, num_units: int) -> Floats:
    """Return random values, some of them 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(num_units) < 0.2, 0.0, rng.lognormal(0, 1, num_units))


def possible(table: SubModelTable, compute_us: int) -> Bools:
    """Return which sets of units keep the anchor head and are within time and budgets, (S,)."""
    good: Bools = table.keeps_anchor & (table.compute_us <= compute_us)
    return good & table.in_budgets


def greedy(instance: Instance, option: Option, values: Floats, compute_us: int) -> float:
    """Return the value of units taken by value for time, as long as they fit."""
    kept = list(instance.units.always_kept)
    for u in np.argsort(-values / np.maximum(1, option.costs.unit_ticks), kind="stable").tolist():
        more = [*kept, u]
        if u not in kept and instance.fits(option, more) and instance.compute_us(option, more) <= compute_us:
            kept = more
    return float(values[kept].sum())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(SEEDS), st.integers(0, 1000), st.floats(0.0, 1.2))
def test_fillings_fit_and_are_near_the_best(seed: int, values_seed: int, share: float) -> None:
    """By trying every set, a filling is within time and memory, and there is one exactly where any set is.

    It keeps the anchor head, is worth at least as much as a greedy choice, and three fifths of the best.
    """
    instance = instance_of(seed)
    for o, option in enumerate(instance.options[:3]):
        table, values = table_of(seed, o), drawn_values(values_seed, len(instance.units))
        compute_us = int(share * table.compute_us.max())
        good = possible(table, compute_us)
        kept = fill(option, instance.units, values, compute_us)
        assert (kept is not None) == bool(good.any())
        if kept is None:
            continue
        rows = kept_rows(len(instance.units))
        assert (rows[good] == kept).all(axis=1).any()
        assert values @ kept >= greedy(instance, option, values, compute_us) - 1e-9
        assert values @ kept >= 0.6 * float((rows[good] @ values).max())


def test_most_fillings_are_the_best() -> None:
    """With 8 units, 19 in 20 fillings are worth the best to a millionth, and the mean is within a percent."""
    reached = []
    for seed in SEEDS:
        instance = instance_of(seed)
        for o, option in enumerate(instance.options):
            table, rows = table_of(seed, o), kept_rows(len(instance.units))
            for step, share in enumerate((0.2, 0.4, 0.6, 0.8)):
                values, compute_us = (
                    drawn_values(10 * o + step, len(instance.units)),
                    int(share * table.compute_us.max()),
                )
                kept = fill(option, instance.units, values, compute_us)
                if kept is not None:
                    best = float((rows[possible(table, compute_us)] @ values).max())
                    reached.append(float(values @ kept) / best if best else 1.0)
    assert len(reached) > 150
    assert np.mean(np.array(reached) >= 1 - 1e-6) >= 0.95
    assert np.mean(reached) >= 0.99


@pytest.mark.parametrize("memory_binds", [False, True])
def test_more_time_is_worth_no_less(memory_binds: bool) -> None:
    """With many units, twenty times in a row each filling is worth 0.98 of what any before was, or more."""
    profile = heavy_heads(num_heads=4, num_groups=16) if memory_binds else random_profile(4, num_classes=4, **DIGITS)
    instance = build_instance(profile, random_fleet(profile, 4, tightness=0.5 if memory_binds else 4.0), floored())
    for option in instance.options:
        values, whole_us = drawn_values(4, len(instance.units)), option.costs.max_ticks // option.costs.ticks_per_us
        worth = []
        for step in range(1, 21):
            kept = fill(option, instance.units, values, whole_us * step // 20)
            worth.append(0.0 if kept is None else float(values @ kept))
        assert worth[-1] > 0
        highest = np.maximum.accumulate(worth)
        assert (np.array(worth) >= 0.98 * highest).all()


def test_what_is_worth_nothing_is_left_out() -> None:
    """Units of no value are not kept, unless they always are, even with room for all."""
    profile = random_profile(1, num_classes=2)
    instance = build_instance(profile, random_fleet(profile, 1, tightness=20.0), floored())
    kept = fill(instance.options[0], instance.units, np.zeros(len(instance.units)), 10**9)
    assert kept is not None
    assert np.flatnonzero(kept).tolist() == list(instance.units.always_kept)
