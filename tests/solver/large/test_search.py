"""The large method on few classes: bounds and plans are sound, by brute force."""

import pytest

from planner.schema import Fleet, Goal, Profile
from planner.solver.large.search import search_large
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.placement import is_plan
from planner.solver.problem.search import SearchRequest, SearchResult
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import SMALL, best_of, sharpened, small, small_best


def searched(instance: Instance) -> SearchResult:
    """Return the result of the method for many classes."""
    return search_large(instance, SearchRequest(ObjectiveFunction(instance, instance.goal.objective)), Clock(0.05))


@pytest.mark.parametrize("seed", SMALL[::4])
def test_the_method_for_many_classes_is_sound_on_few(seed: int) -> None:
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
