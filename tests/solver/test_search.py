"""Searches of one instance: exact for few classes, the large method for many, and what they share."""

import pytest

from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.placement import is_plan
from planner.solver.problem.search import SearchRequest, SearchResult
from planner.solver.search import InstanceSearch
from tests.helpers.column_assignments import enumerable_seeds, optimum
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, profile
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, roomy
from tests.helpers.varied_instances import varied_instance


def test_few_classes_are_searched_exactly() -> None:
    """The result is its own bound, whatever the objective; a second search needs no more relaxations."""
    found = 0
    for seed in enumerable_seeds()[::4]:
        instance = varied_instance(seed)
        search = InstanceSearch(instance, Clock(60))
        objective = ObjectiveFunction(instance)
        result = search.run(SearchRequest(objective))
        best = optimum(seed, objective)
        if best >= NEVER:
            assert result == SearchResult(None, None)
            continue
        found += 1
        assert result.placed is not None
        assert (result.bound, objective.value_of(result.placed)) == (best, best)
        assert search.subset_costs is not None
        num_relaxed = search.subset_costs.num_relaxed
        assert search.run(SearchRequest(objective)).bound == best
        assert search.subset_costs.num_relaxed == num_relaxed
        assert search.warm_start.cuts
    assert found >= 5


@pytest.mark.parametrize(
    ("num_classes", "seconds", "by_subsets"), [(12, 0.0, True), (13, 2.0, False), (16, 30.0, True), (17, 30.0, False)]
)
def test_the_method_follows_the_number_of_classes(num_classes: int, seconds: float, by_subsets: bool) -> None:
    """Up to a dozen classes there are costs of subsets, up to sixteen if there is time; there is always a plan."""
    of = random_profile(1, num_classes=num_classes, num_groups=4)
    instance = build_instance(of, roomy(random_fleet(of, 1, num_devices=2)), floored())
    search = InstanceSearch(instance, Clock(seconds, deterministic=True))
    assert (search.subset_costs is not None) == by_subsets
    if seconds == 0:
        return
    result = search.run(SearchRequest(ObjectiveFunction(instance)))
    assert result.placed is not None
    assert is_plan(instance, result.placed)
    assert result.bound is not None
    assert result.bound <= instance.fleet_latency_us(result.placed)
    assert (search.warm_start == NO_WARM_START) == (not by_subsets)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_classes_twice_cost_the_same(seed: int) -> None:
    """Twelve classes have the plan that they have beside copies of some of them, whichever method finds it."""
    drawn = random_profile(seed, num_classes=12, num_groups=4)
    fleet = random_fleet(drawn, seed, num_devices=3, tightness=1.2)
    least = []
    for copies in (0, 1, 2):
        data = drawn.model_dump(mode="json") | {"fusion_hidden": 1}
        data["classes"] += [f"copy {c}" for c in range(copies)]
        for rows in [*data["importance"].values(), *(width["embed_retention"] for width in data["widths"])]:
            rows += rows[:copies]
        instance = build_instance(type(drawn).model_validate(data), fleet, floored())
        result = InstanceSearch(instance, Clock(60)).run(SearchRequest(ObjectiveFunction(instance)))
        if result.placed is None:
            least.append(NEVER)
            continue
        assert result.bound == instance.fleet_latency_us(result.placed)
        least.append(instance.slowest_us(result.placed))
    assert least[0] == least[1] == least[2] < NEVER


def test_between_the_methods_the_rest_of_the_time_is_the_large_method_s() -> None:
    """What the exact method leaves open, the large method may better; no bound is lost."""
    of = random_profile(3, num_classes=14, num_groups=8)
    instance = build_instance(of, random_fleet(of, 3, num_devices=6, tightness=0.5), floored())
    proven = InstanceSearch(instance, Clock(60)).run(SearchRequest(ObjectiveFunction(instance)))
    assert proven.placed is not None
    assert proven.bound == instance.fleet_latency_us(proven.placed)
    clock = Clock(5.0, deterministic=True)
    search = InstanceSearch(instance, clock)
    assert search.subset_costs is not None
    # Nearly all is gone before the exact method can begin.
    clock.spend(4.9)
    result = search.run(SearchRequest(ObjectiveFunction(instance)))
    assert result.bound is not None
    assert result.bound <= proven.bound
    if result.placed is not None:
        assert is_plan(instance, result.placed)
        assert instance.fleet_latency_us(result.placed) >= proven.bound


def test_out_of_time_the_large_method_finds_some_plan() -> None:
    """With no time for the exact method there is a plan all the same, in the grace that follows."""
    of = random_profile(5, num_classes=10, **DIGITS)
    instance = build_instance(of, roomy(random_fleet(of, 5, num_devices=4, tightness=0.4)), floored())
    search = InstanceSearch(instance, Clock(0.3, deterministic=True))
    assert search.subset_costs is not None
    search.subset_costs.lower_bound[:, 1:] = 0
    result = search.run(SearchRequest(ObjectiveFunction(instance)))
    assert result.placed is not None
    assert is_plan(instance, result.placed)
    assert result.bound is not None
    assert result.bound <= instance.fleet_latency_us(result.placed)


def test_without_devices_there_is_no_plan() -> None:
    """With every device left out, nothing is searched for."""
    instance = build_instance(profile(), fleet(), floored(leave_out=("gateway", "near", "far")))
    search = InstanceSearch(instance, Clock(1))
    assert search.run(SearchRequest(ObjectiveFunction(instance))) == SearchResult(None, None)
    assert search.subset_costs is None
