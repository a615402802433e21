"""Linear relaxations of the sub-model problem: below every sub-model, by enumeration."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.cost_table import MEMORY
from planner.solver.problem.instance import IMPORTANCE_SCALE, Instance
from planner.solver.problem.option import Option
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet
from tests.helpers.solver_instances import heavy_heads, with_device
from tests.helpers.sub_model_enumeration import (
    NO_SUB_MODEL,
    SEEDS,
    cases,
    cheapest_by_enumeration,
    enumerate_sub_models,
    instance_of,
    subsets,
    table_of,
)


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_are_bounds(seed: int) -> None:
    """No sub-model of these classes, or of a superset with the same binding classes, is faster."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        relaxation = Relaxation(instance, option)
        for classes in subsets(instance):
            bound = relaxation.bound(classes)
            if bound is None:
                assert cheapest_by_enumeration(seed, o, classes) == NO_SUB_MODEL
                continue
            assert set(bound.binding) <= set(classes)
            for others in subsets(instance):
                if set(bound.binding) <= set(others):
                    assert bound.by_count[len(others) - 1] <= cheapest_by_enumeration(seed, o, others)


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_of_a_budget_are_bounds(seed: int) -> None:
    """No sub-model takes less of a budget, however large that is, among those within the budgets after it."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        always = np.zeros((1, len(instance.units)), dtype=bool)
        always[0, list(instance.units.always_kept)] = True
        table, least_grains = table_of(seed, o), option.costs.grains(always)[0]
        least_bytes = [used for used, _ in instance.budget_use(option, instance.units.always_kept).values()]
        for budget, least in enumerate(least_bytes):
            relaxation = Relaxation(instance, option, budget)
            later = (table.used_bytes <= table.budget_bytes)[:, budget + 1 :].all(axis=1)
            for classes in subsets(instance):
                bound = relaxation.bound(classes)
                used = table.used_bytes[table.meets_floors(classes) & later, budget]
                if bound is None:
                    assert not len(used)
                elif len(used):
                    # The bound counts what is beyond the anchor head's weights, which were rounded up.
                    grains = (int(used.min()) - least + 1) * option.costs.grains_per_byte
                    assert bound.by_count[len(classes) - 1] <= grains + least_grains[budget]


def scaled(instance: Instance, factor: float) -> Instance:
    """Return an instance with all budgets scaled, and other floors."""
    fleet = instance.fleet
    for i, device in enumerate(fleet.devices):
        fleet = with_device(fleet, i, memory_budget=round(factor * device.memory_budget))
        if device.storage_budget is not None:
            fleet = with_device(fleet, i, storage_budget=round(factor * device.storage_budget))
    return build_instance(instance.profile, fleet, Goal(min_retention=0.6))


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_dual_cuts_hold_at_other_needs_and_budgets(factor: float) -> None:
    """With other floors and budgets, no sub-model with the classes that a cut prices is below the cut."""
    compared = priced = 0
    heavy = heavy_heads(num_heads=3, num_groups=2)
    dear = [build_instance(heavy, random_fleet(heavy, seed), floored()) for seed in (1, 2)]
    for before in (*(instance_of(seed) for seed in SEEDS[::2]), *dear):
        after = scaled(before, factor)
        for old, new in zip(before.options, after.options, strict=True):
            relaxation, table = Relaxation(before, old), enumerate_sub_models(after, new)
            for classes in subsets(before):
                bound = relaxation.bound(classes)
                if bound is None or bound.cut is None:
                    continue
                cut, need = bound.cut, old.need[:, len(classes) - 1] / IMPORTANCE_SCALE
                # At its own needs and budget, the dual value is the primal one.
                own = cut.constant + float(cut.per_grain @ old.free_grains) + float(cut.prices @ need)
                assert math.ceil(own * (1 - 1e-6) - 1e-6) == bound.by_count[len(classes) - 1]
                for others in subsets(after):
                    if set(bound.binding) <= set(others):
                        need = new.need[:, len(others) - 1] / IMPORTANCE_SCALE
                        value = cut.constant + float(cut.per_grain @ new.free_grains) + float(cut.prices @ need)
                        assert value <= table.cheapest_us(others) * (1 + 1e-6) + 1e-6
                        compared += 1
                        # Here the price of a budget decides.
                        priced += min(cut.per_grain) < 0 < value
    assert compared >= 1000
    assert priced >= 20


def independent_relaxation_us(instance: Instance, option: Option, classes: tuple[int, ...]) -> float | None:
    """Return the value of the relaxation by HiGHS; None where it is infeasible. Columns: y, the charges, the peak."""
    costs, num_units, num_sets = option.costs, len(instance.units), len(option.costs.unit_sets)
    width = num_units + num_sets + 1
    rows, right = [], []

    def at_most(bound: float, coefficients: dict[int, float]) -> None:
        row = np.zeros(width)
        row[list(coefficients)] = list(coefficients.values())
        rows.append(row)
        right.append(bound)

    for c in classes:
        shares = instance.units.shares[c].tolist()
        at_most(-option.need[c, len(classes) - 1] / IMPORTANCE_SCALE, {u: -share for u, share in enumerate(shares)})
    for m, free in enumerate(option.free_grains.tolist()):
        scale = max(1, abs(free))
        weights = {u: grains / scale for u, grains in enumerate(costs.unit_grains[m].tolist())}
        at_most(free / scale, weights | {width - 1: 1 / scale} if m == MEMORY else weights)
    for p, unit_set in enumerate(costs.unit_sets):
        members = unit_set.members.tolist()
        at_most(0, dict(zip(members, unit_set.peak_grains.tolist(), strict=True)) | {width - 1: -1})
        for u in members:
            at_most(0, {u: 1, num_units + p: -1})
    ticks = np.concatenate([costs.unit_ticks, costs.charges, [0]])
    bounds: list[tuple[int, int | None]] = [(0, 1)] * (num_units + num_sets) + [(0, None)]
    for u in instance.units.always_kept:
        bounds[u] = (1, 1)
    found = linprog(ticks / costs.ticks_per_us, A_ub=np.array(rows), b_ub=right, bounds=bounds)
    return None if found.status == 2 else float(found.fun) + costs.fixed_ticks / costs.ticks_per_us


def test_relaxations_equal_an_independent_program() -> None:
    """HiGHS, with the constraints as documented, has the same value, and is infeasible where there is no bound."""
    infeasible = 0
    for seed in (*SEEDS[::4], 2, 3):
        for instance, _, option, classes in cases(seed):
            bound, value = (
                Relaxation(instance, option).bound(classes),
                independent_relaxation_us(instance, option, classes),
            )
            assert (bound is None) == (value is None)
            infeasible += value is None
            if bound is not None and value is not None:
                # Rounded up, after it was loosened a little.
                assert bound.by_count[len(classes) - 1] == math.ceil(value * (1 - 1e-6) - 1e-6)
    assert infeasible >= 10


def test_relaxations_are_not_trivial() -> None:
    """The bound of most class subsets is more than two thirds of the optimum."""
    shares = []
    for seed in SEEDS[::4]:
        for instance, o, option, classes in cases(seed):
            bound, exact = Relaxation(instance, option).bound(classes), cheapest_by_enumeration(seed, o, classes)
            if bound is not None and 0 < exact < NO_SUB_MODEL:
                shares.append(bound.by_count[len(classes) - 1] / exact)
    assert len(shares) > 100
    assert sorted(shares)[len(shares) // 2] > 2 / 3
