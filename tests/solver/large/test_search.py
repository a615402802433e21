"""The large method on few classes: bounds and plans are sound, by brute force."""

import numpy as np
import pytest

from planner.schema import Fleet, Goal, Profile
from planner.solver.large.search import search_large
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.placement import is_plan
from planner.solver.problem.search import SearchRequest, SearchResult
from tests.helpers.column_assignments import enumerable_seeds, optimum
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import SMALL, best_of, sharpened, small, small_best
from tests.helpers.varied_instances import varied_instance


def searched(instance: Instance) -> SearchResult:
    """Return the result of the large method in little counted work."""
    request = SearchRequest(ObjectiveFunction(instance, instance.goal.objective))
    return search_large(instance, request, Clock(0.5, deterministic=True))


@pytest.mark.parametrize("seed", SMALL[::4])
def test_the_large_method_is_sound_on_few_classes(seed: int) -> None:
    """Its bound is below the optimum, its plan is not better, and feasible instances are never called infeasible."""
    drawn, on, goal = small(seed)
    best = small_best(seed)
    instance = build_instance(drawn, on, goal)
    found = searched(instance)
    if best is None:
        assert found.placed is None
        return
    assert found.bound is not None
    assert found.bound <= best.latency_us
    if found.placed is not None:
        assert instance.fleet_latency_us(found.placed) >= best.latency_us
        assert all(instance.fits(p.option, p.kept) for p in found.placed)
        assert all(instance.meets_floors(p.option, p.classes, p.kept) for p in found.placed)


def drawn_with_demands(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 3 or 4 classes on 2 to 4 devices, and a goal with demands and any objective but accuracy."""
    of = random_profile(4000 + seed, num_classes=3 + seed % 2, widths=(8, 4) if seed % 4 == 0 else (8,), penalties=True)
    of = sharpened(of) if seed % 3 else of
    on = random_fleet(of, 4000 + seed, num_devices=2 + seed % 3, tightness=1.5, meshed=seed % 2 > 0, choices=True)
    goal = random_goal(of, on, 4000 + seed)
    objective = "latency" if goal.objective == "accuracy" else goal.objective
    return of, on, Goal.model_validate(goal.model_dump() | {"objective": objective})


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_it_is_sound_with_demands(first: int) -> None:
    """It is sound with pins, survivors, shared links, energy and the other objectives as well."""
    possible, found_too = 0, 0
    for seed in range(first, first + 25):
        of, on, goal = drawn_with_demands(seed)
        best, instance = best_of(of, on, goal), build_instance(of, on, goal)
        found, objective = searched(instance), ObjectiveFunction(instance, goal.objective)
        if best is None:
            assert found.placed is None or instance.fleet_latency_us(found.placed) > (goal.max_latency_us or 0)
            continue
        value = float(best.value) * (1000 * instance.energy_scale if goal.objective == "energy" else 1)
        assert found.bound is not None, seed
        assert found.bound <= value + 1e-6, seed
        possible += 1
        if found.placed is not None:
            found_too += 1
            assert is_plan(instance, found.placed), seed
            assert objective.value_of(found.placed) >= value - 1e-6, seed
    assert possible >= 6
    assert found_too >= 0.6 * possible


def test_it_obeys_a_limit_of_devices() -> None:
    """With one device at most, the plan has one, and the bound is below the best of those assignments."""
    found_too = 0
    for seed in enumerable_seeds()[::2]:
        instance = varied_instance(seed)
        objective = ObjectiveFunction(instance)
        max_use = np.full(instance.num_resources, NEVER)
        max_use[DEVICES] = 1
        found = search_large(instance, SearchRequest(objective, max_use=max_use), Clock(0.5, deterministic=True))
        best = optimum(seed, objective, max_devices=1)
        assert best >= NEVER or found.bound is not None
        assert found.bound is None or found.bound <= best
        if found.placed is not None:
            assert is_plan(instance, found.placed)
            assert len(found.placed) == 1
            found_too += 1
    assert found_too >= 5


def test_it_ends_early_where_it_may() -> None:
    """The first plan good enough is taken, a bound too high gives up, and an earlier plan is not lost."""
    compared = 0
    for seed in enumerable_seeds()[::4]:
        instance = varied_instance(seed)
        objective = ObjectiveFunction(instance)
        best = optimum(seed, objective)
        plan = search_large(instance, SearchRequest(objective), Clock(0.5, deterministic=True)).placed
        if plan is None or best >= NEVER:
            continue
        compared += 1
        any_plan = search_large(instance, SearchRequest(objective, enough=NEVER - 1), Clock(60))
        assert any_plan.placed is not None
        assert any_plan.bound is not None
        hopeless = search_large(instance, SearchRequest(objective, give_up=any_plan.bound), Clock(60))
        assert hopeless.bound == any_plan.bound
        again = search_large(instance, SearchRequest(objective, earlier=plan), Clock(0.5, deterministic=True))
        assert again.placed is not None
        assert objective.value_of(again.placed) <= objective.value_of(plan)
    assert compared >= 5
