"""Every sub-model keeps the anchor head: in all methods and objectives, and where memory is too short for it."""

from typing import Any

import numpy as np
import pytest

from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import SolveOptions, solve
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.cost_table import MEMORY
from planner.solver.problem.instance import NEVER
from planner.solver.second_stage.fill import fill
from planner.solver.submodels import knapsack
from planner.solver.submodels.lagrangian import LagrangianHeuristic
from planner.solver.submodels.relaxation import Relaxation
from planner.solver.submodels.single_class import single_class_us
from tests.helpers.brute_costs import keeps_anchor
from tests.helpers.goals import floored
from tests.helpers.many_classes import GOALS, large
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import best_of, changed, roomy
from tests.helpers.sub_model_enumeration import enumerate_sub_models, subsets


def anchor_of(of: Profile) -> int:
    """Return the anchor head in the last block: where `keeps_anchor` is true of one head alone."""
    data = of.model_dump(mode="json")
    num_units = of.depth * of.num_heads + sum(map(len, of.channel_groups))
    first = num_units - len(of.channel_groups[-1]) - of.num_heads
    kept = keeps_anchor(data, np.eye(num_units, dtype=bool))
    (position,) = np.flatnonzero(kept).tolist()
    return int(position) - first


def useless_anchor(of: Profile, for_class: int) -> Profile:
    """Return a profile whose anchor head is worth nothing to one class; another head has its importance."""
    importance, anchor = of.model_dump(mode="json")["importance"], anchor_of(of)
    heads = importance["heads"][for_class]
    heads[0][0] += heads[-1][anchor]
    heads[-1][anchor] = 0.0
    return changed(of, importance=importance)


def assert_kept(plan: Plan, of: Profile) -> None:
    """Assert that every sub-model keeps the anchor head."""
    assert all(anchor_of(of) in a.kept_heads[-1] for a in plan.assignments)


# --- plans


@pytest.mark.parametrize("method", ["exact", "random-equal", "greedy", "memory-proportional"])
@pytest.mark.parametrize("seed", range(8))
def test_every_method_keeps_it(method: str, seed: int) -> None:
    """At no floor at all, and with an anchor head that one class has no use for, it is kept all the same."""
    of = useless_anchor(random_profile(seed, num_classes=4 + seed % 2 * 10, num_heads=3), for_class=0)
    on = roomy(random_fleet(of, seed))
    for floor in (0.0, 0.4):
        goal = Goal.model_validate({"method": method, "min_retention": floor, "leave_idle": seed % 3 == 0})
        assert_kept(solve(of, on, goal, SolveOptions(seed=seed)), of)


@pytest.mark.parametrize("name", ["latency", "survive", "energy", "devices", "accuracy"])
def test_every_objective_keeps_it(name: str) -> None:
    """With more classes than the exact method takes, too."""
    of, on = large(13)
    goal = Goal.model_validate({"min_retention": 0.2} | GOALS[name])
    assert_kept(solve(of, on, goal, SolveOptions(time_limit_s=4, deterministic=True)), of)


def without_anchor(plan: Plan, of: Profile) -> Plan:
    """Return a plan with every other head of the last block in place of the anchor head."""
    others = [h for h in range(of.num_heads) if h != anchor_of(of)]
    data = plan.model_dump(mode="json")
    for assignment in data["assignments"]:
        assignment["kept_heads"][-1] = others
    return Plan.model_validate(data)


@pytest.mark.parametrize("num_classes", [4, 13])
def test_an_earlier_plan_without_it_is_not_kept(num_classes: int) -> None:
    """A search that begins with sub-models that lack it ends with some that have it, as good as without a start."""
    of = random_profile(3, num_classes=num_classes, num_heads=3)
    on, goal = roomy(random_fleet(of, 3)), Goal(min_retention=0.3)
    plan = solve(of, on, goal)
    again = solve(of, on, goal, SolveOptions(start=without_anchor(plan, of)))
    assert_kept(again, of)
    assert again.latency_us == plan.latency_us


def test_a_model_without_heads_is_planned() -> None:
    """Where there is no head there is no anchor head: 500 MACs / 3 and 20 us of fusion."""
    importance = {"heads": [[[], []], [[], []]], "channel_groups": [[[0.25, 0.25], [0.25, 0.25]]] * 2}
    headless = profile(num_heads=0, importance=importance)
    assert build_instance(headless, fleet(), floored()).units.always_kept == ()
    assert solve(headless, fleet(), Goal(min_retention=0)).latency_us == 167 + 20


# --- sub-models


@pytest.mark.parametrize("seed", range(6))
def test_every_way_to_build_a_sub_model_keeps_it(seed: int) -> None:
    """Knapsacks and the heuristic keep it at any floor; bounds count its cost, and are below what they bound."""
    of = useless_anchor(random_profile(seed, kinds=("a",), num_heads=2), for_class=1)
    built = 0
    for floor in (0.0, 0.5):
        instance = build_instance(of, random_fleet(of, seed, tightness=1.5), Goal(min_retention=floor))
        anchor = instance.units.always_kept[0]
        for option in instance.options:
            table, relaxation = enumerate_sub_models(instance, option), Relaxation(instance, option)
            heuristic = LagrangianHeuristic(instance, option).build(subsets(instance))
            single_us = single_class_us(instance, option)
            alone_us = instance.compute_us(option, (anchor,))
            for i, classes in enumerate(subsets(instance)):
                exact, bound = knapsack.cheapest(instance, option, classes, Clock(10)), relaxation.bound(classes)
                if exact.kept is None:
                    continue
                assert exact.bound == table.cheapest_us(classes)
                assert bound is not None
                assert alone_us - 1 <= bound.by_count[len(classes) - 1] <= table.cheapest_us(classes)
                assert alone_us - 1 <= single_us[list(classes), len(classes) - 1].min()
                ways: list[Any] = [exact.kept, knapsack.smallest(instance, option, classes, MEMORY, Clock(10)).kept]
                filled = fill(option, instance.units, np.ones(len(instance.units)), 2 * table.cheapest_us(classes))
                assert filled is not None
                ways.append(np.flatnonzero(filled).tolist())
                if heuristic.compute_us[i] < NEVER:
                    ways.append(np.flatnonzero(heuristic.kept[i]).tolist())
                assert all(anchor in kept for kept in ways)
                built += 1
    assert built > 20


# --- memory that is too short for it


def heavy_anchor(budget: int) -> tuple[Profile, Fleet]:
    """Return the pencil gateway and a profile whose heads of the last block have 60 params at either width.

    At width 4 and no floor, a sub-model without heads takes 25 x 4 + 10 + 1000 = 1110 bytes, and with the anchor
    head, of 60 params and 4 bytes of activations, 1354.
    """
    widths = [width | {"head_params": [width["head_params"][0], 60]} for width in profile().model_dump()["widths"]]
    gateway = fleet_data()["devices"][0] | {"memory_budget": budget}
    return profile(widths=widths), fleet(devices=[gateway], links=[])


def test_a_fleet_may_be_too_small_for_it() -> None:
    """What lacks a byte for the anchor head is infeasible; the message counts it, and the addition is enough for it."""
    goal = Goal(min_retention=0.0)
    of, on = heavy_anchor(1353)
    assert best_of(of, on, goal) is None
    message = (
        r"\ANo plan: class '[ab]' needs at least 1\.4 KiB on any device; the largest budget is 1\.3 KiB \(gateway\)\. "
        r"Smallest change that works: \+0\.1 KiB on gateway\.\Z"
    )
    with pytest.raises(InfeasibleError, match=message):
        solve(of, on, goal)
    of, on = heavy_anchor(1354)
    assert solve(of, on, goal).assignments[0].memory_bytes == 1354


def test_floors_are_not_blamed_for_it() -> None:
    """Lower floors do not help where the anchor head does not fit, so no message names one."""
    of, on = heavy_anchor(1300)
    with pytest.raises(InfeasibleError, match=r"\ANo plan: class ") as caught:
        solve(of, on, Goal(min_retention=0.2))
    assert "min_retention" not in str(caught.value)
