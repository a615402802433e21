"""The exact method against brute force and by hand."""

import re
from collections import Counter

import numpy as np
import pytest

from planner.rules.check import check
from planner.schema import Goal
from planner.solver import solve
from planner.solver.exact.benders import search_exact
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.placement import is_plan
from planner.solver.problem.search import SearchRequest, SearchResult
from tests.helpers.advice import message_of_small
from tests.helpers.column_assignments import enumerable_seeds, optimum
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.solver_instances import SMALL, small, small_best
from tests.helpers.varied_instances import varied_instance


@pytest.mark.parametrize("seed", SMALL)
def test_brute_force_agrees(seed: int) -> None:
    """The latency is the same to the microsecond, with proof, and there is no plan exactly where there is none."""
    drawn, on, goal = small(seed)
    best = small_best(seed)
    if best is None:
        assert re.fullmatch(r"No plan: .*\.", message_of_small(seed))
        return
    plan = solve(drawn, on, goal)
    assert plan.latency_us == best.latency_us
    assert (plan.status, plan.bound_us, plan.gap) == ("optimal", plan.latency_us, 0.0)
    assert check(plan, drawn, on) == []


def test_brute_force_sees_all_sorts_of_fleets() -> None:
    """Instances with and without a plan, with every kind of goal, width and number of devices occur."""
    seen = Counter[object]()
    for seed in SMALL:
        _, on, goal = small(seed)
        best = small_best(seed)
        seen["infeasible" if best is None else "feasible"] += 1
        seen["infeasible" if best is None else "feasible", len(on.devices)] += 1
        seen["floor", round(goal.min_retention or 0.0, 1)] += 1
        if best is not None:
            used = [pick for pick in best.picks if pick is not None]
            seen["used", len(used)] += 1
            seen["narrow"] += any(embed_dim == 4 for _, embed_dim in used)
            seen["table"] += any(d.kind and pick for d, pick in zip(on.devices, best.picks, strict=True))
    common = ["infeasible", "feasible", ("floor", 0.5), ("floor", 0.3), "narrow", ("used", 1), ("used", 2)]
    assert {what: seen[what] for what in common if seen[what] < 24} == {}
    assert {n: seen["infeasible", n] for n in (1, 2, 3) if seen["infeasible", n] < 8} == {}
    assert seen["table"] >= 10
    assert seen["used", 3] >= 3


def test_a_plan_for_one_device_by_hand() -> None:
    """Both classes at 0.9 on the gateway: no plan without head 0.3 of a and 0.3 of b, group 0.2 of b, ...

    Class a may lose 0.1 and class b 0.1, so one unit of at most 0.1 in both, or two of 0.05 in b and
    at most 0.1 together in a: of those, head 0 of block 1 (a 0.1, b 0.1) saves most: 200 MACs of
    1690. 1490 / 3 = 496.67 us, and 10 x (8 + 2) / 3 = 33.33 us for the fusion. Width 4 retains too little.
    """
    alone = fleet(devices=fleet_data()["devices"][:1], links=[])
    plan = solve(profile(), alone, Goal(min_retention=0.9))
    assert plan.assignments[0].kept_heads == ((0, 1), (1,))
    assert plan.assignments[0].kept_channel_groups == ((0, 1), (0, 1))
    assert (plan.latency_us, plan.bound_us) == (497 + 34, 497 + 34)


# --- the search itself


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_the_search_obeys_a_limit_of_resources(first: int) -> None:
    """With one device at most, the result is the best of those assignments, its own bound, and a plan."""
    found = 0
    for seed in enumerable_seeds()[first : first + 20]:
        instance = varied_instance(seed)
        objective = ObjectiveFunction(instance)
        max_use = np.full(instance.num_resources, NEVER)
        max_use[DEVICES] = 1
        request = SearchRequest(objective, max_use=max_use)
        result = search_exact(SubsetCosts(instance, NO_WARM_START), request, Clock(60))
        best = optimum(seed, objective, max_devices=1)
        if best >= NEVER:
            assert (result.placed, result.bound) == (None, None)
            continue
        found += 1
        assert result.placed is not None
        assert is_plan(instance, result.placed)
        assert len(result.placed) == 1
        assert objective.value_of(result.placed) == result.bound == best
    assert found >= 4


def test_the_search_ends_early_where_it_may() -> None:
    """With `enough`, any plan that good will do; with `give_up`, a bound that high; from the best plan, that plan."""
    compared = unproven = 0
    for seed in enumerable_seeds()[::2]:
        instance = varied_instance(seed)
        objective = ObjectiveFunction(instance)
        best = optimum(seed, objective)
        if best >= NEVER:
            continue
        compared += 1

        def search(request: SearchRequest, i: Instance = instance) -> SearchResult:
            return search_exact(SubsetCosts(i, NO_WARM_START), request, Clock(60))

        good = search(SearchRequest(objective, enough=2 * best))
        assert good.placed is not None
        assert good.bound is not None
        assert good.bound <= best <= objective.value_of(good.placed) <= 2 * best
        unproven += good.bound < objective.value_of(good.placed)
        hopeless = search(SearchRequest(objective, give_up=best // 2))
        assert hopeless.bound is not None
        assert best // 2 <= hopeless.bound <= best
        proven = search(SearchRequest(objective)).placed
        assert proven is not None
        again = search(SearchRequest(objective, earlier=proven))
        assert again == SearchResult(proven, best)
    assert compared >= 8
    assert unproven >= 1


def test_out_of_time_the_earlier_plan_is_the_best_known() -> None:
    """Without any time the search returns its start and a bound; without a start, nothing but a bound."""
    seed = next(seed for seed in enumerable_seeds() if optimum(seed, ObjectiveFunction(varied_instance(seed))) < NEVER)
    instance = varied_instance(seed)
    objective = ObjectiveFunction(instance)
    plan = search_exact(SubsetCosts(instance, NO_WARM_START), SearchRequest(objective), Clock(60)).placed
    assert plan is not None
    for earlier in ((), plan):
        costs = SubsetCosts(instance, NO_WARM_START)
        result = search_exact(costs, SearchRequest(objective, earlier=earlier), Clock(0))
        assert result.bound is not None
        assert result.bound <= objective.value_of(plan)
        assert result.placed == (earlier or None)
