"""Starting from an earlier plan: equally good sub-models stay, and little moves."""

from collections.abc import Iterator
from functools import lru_cache

import pytest

from planner.rules.check import check
from planner.schema import Fleet, Goal, Profile
from planner.solver import SolveOptions, solve
from planner.solver.exact.benders import search_exact
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import by_device, is_plan, is_valid, move_cost, placement_of_plan
from planner.solver.problem.search import SearchRequest
from planner.solver.problem.subsets import mask_of
from planner.solver.second_stage.stay_near import stay_near
from tests.helpers.accuracy import predictable
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import (
    CHANGED,
    changed,
    latency_of,
    middling,
    middling_us,
    same,
    sharpened,
    with_device,
)
from tests.helpers.sub_model_enumeration import exact_costs
from tests.helpers.varied_instances import feasible_seeds, varied

ROOMY = range(500, 512)

# Sub-model of each used device.
Placement = dict[str, PlacedSubModel]


@lru_cache
def roomy(seed: int) -> tuple[Profile, Fleet]:
    """Return 5 classes on 4 devices that hold most of the model, so that many plans are equally good."""
    drawn = predictable(random_profile(seed, num_classes=5, num_groups=4, penalties=seed % 3 == 0), seed)
    return drawn, random_fleet(drawn, seed, num_devices=4, tightness=1.0, choices=True, meshed=seed % 2 > 0)


@pytest.mark.parametrize("objective", ["latency", "devices", "energy", "accuracy"])
@pytest.mark.parametrize("leave_idle", [False, True])
def test_from_the_best_plan_nothing_moves(objective: str, leave_idle: bool) -> None:
    """From the optimal plan the same plan comes back, with the same bound."""
    for seed in ROOMY[: 3 if objective == "accuracy" else 8]:
        drawn, on = roomy(seed)
        limit_ms = 1.5 * latency_of(drawn, on) / 1000
        goal = floored(objective=objective, max_latency_ms=limit_ms, leave_idle=leave_idle)
        plan = solve(drawn, on, goal)
        again = solve(drawn, on, goal, SolveOptions(start=plan))
        assert plan.status == "optimal" or objective == "accuracy"
        assert again.assignments == plan.assignments
        assert same(again, plan)


@lru_cache
def spread(seed: int) -> tuple[Profile, Fleet]:
    """Return 7 classes that need different units, on a gateway and 5 boards of 3 kinds."""
    drawn = predictable(random_profile(seed, num_classes=7, num_groups=4), seed)
    widths = [width | {"fixed_macs": 0} for width in drawn.model_dump(mode="json")["widths"]]
    drawn = changed(sharpened(drawn), widths=widths, fusion_hidden=1)
    rates = [2e7, 2e7, 2e7, 2.6e7, 2.6e7, 3.2e7]
    device = {"memory_budget": 10**6, "runtime_overhead": 0}
    devices = [device | {"name": f"d{i}", "macs_per_second": rate} for i, rate in enumerate(rates)]
    link = {"bandwidth_mbps": 1000, "latency_ms": 0.001}
    fields = {"name": "spread", "aggregator": "d0", "devices": devices, "default_link": link}
    return drawn, Fleet.model_validate(fields)


def least_cost(instance: Instance, best: Placement, earlier: Placement) -> int:
    """Return the least cost of moves of any plan as fast as the best, by dynamic programming over class subsets.

    Every device is alone on its path, and there is one embed dim: what fusion takes no longer bounds their number.
    """
    costs, num_classes = exact_costs(instance), instance.num_classes
    fusion_us = instance.fusion_us(sum(p.option.embed_dim for p in best.values()))
    embed_dim = instance.options[0].embed_dim
    everyone = [name for group in instance.groups for name in group.names]
    most = max(n for n in range(len(everyone) + 1) if instance.fusion_us(n * embed_dim) <= fusion_us)
    least = {(0, 0): 0}
    for o, option in enumerate(instance.options):
        limit_us = instance.slowest_us(list(best.values())) - option.alone_us
        for name in instance.groups[option.group].names:
            old = earlier.get(name)
            was = 0 if old is None else mask_of(old.classes)
            stays = old is not None and is_valid(instance, old) and instance.compute_us(option, old.kept) <= limit_us
            after = dict(least)
            for mask in range(1, 2**num_classes):
                if costs[o, mask] > limit_us:
                    continue
                price = 2 * (mask & ~was).bit_count() + (mask != was or not stays)
                for (served, used), cost in least.items():
                    key = served | mask, used + 1
                    if used < most and cost + price < after.get(key, 10**6):
                        after[key] = cost + price
            least = after
    return min(cost for (served, _), cost in least.items() if served == 2**num_classes - 1)


def test_nothing_moves_less() -> None:
    """After a loss, the plan near the earlier one moves no more than the best of all plans that are as fast."""
    moved, kept = 0, 0
    for seed in range(600, 604):
        drawn, on = spread(seed)
        plan = solve(drawn, on, floored(min_retention=0.8))
        lost = [a.device for a in plan.assignments][seed % len(plan.assignments)]
        instance = build_instance(drawn, with_device(on, int(lost[1:]), memory_budget=1), floored(min_retention=0.8))
        earlier = placement_of_plan(instance, plan)
        subset_costs, objective = SubsetCosts(instance, NO_WARM_START), ObjectiveFunction(instance)
        found = search_exact(subset_costs, SearchRequest(objective), Clock(60))
        assert found.placed is not None
        best = by_device(instance, found.placed, earlier)
        near = stay_near(instance, found.placed, earlier, subset_costs, objective, Clock(60))
        assert objective.value_of(list(near.values())) == found.bound
        cost = sum(move_cost(p.classes, p.kept, earlier.get(name)) for name, p in near.items())
        assert cost == least_cost(instance, best, earlier), seed
        moved += sum(move_cost(p.classes, p.kept, earlier.get(name)) for name, p in best.items())
        kept += cost
    assert kept < moved


def test_after_a_loss_the_latency_is_that_of_a_new_plan() -> None:
    """Staying near the earlier plan costs no latency and no proof."""
    for seed in range(600, 606):
        drawn, on = spread(seed)
        goal = floored(min_retention=0.8, leave_idle=seed % 2 > 0)
        plan = solve(drawn, on, goal)
        lost = int(plan.assignments[seed % len(plan.assignments)].device[1:])
        fewer = with_device(on, lost, memory_budget=1)
        stayed, anew = solve(drawn, fewer, goal, SolveOptions(start=plan)), solve(drawn, fewer, goal)
        assert check(stayed, drawn, fewer) == []
        assert (stayed.latency_us, stayed.bound_us, stayed.status) == (anew.latency_us, anew.bound_us, "optimal")


@pytest.mark.parametrize("seed", CHANGED)
def test_a_start_never_makes_the_plan_worse(seed: int) -> None:
    """From any earlier plan, also of another fleet, goal or profile, the latency is the same, with proof."""
    drawn, on = middling(seed)
    if middling_us(seed) == float("inf"):
        return
    data = on.model_dump(mode="json")
    roomier = changed(on, devices=[d | {"memory_budget": 2 * d["memory_budget"]} for d in data["devices"]])
    starts = [
        solve(drawn, roomier, floored()),
        solve(drawn, on, Goal(min_retention=0.1)),
        solve(*middling(CHANGED[0]), floored()),
    ]
    renamed = changed(drawn, classes=["x", *drawn.classes[1:]])
    starts.append(solve(renamed, on, floored()))
    for start in starts:
        plan = solve(drawn, on, floored(), SolveOptions(start=start))
        assert (plan.latency_us, plan.status) == (middling_us(seed), "optimal")
        assert check(plan, drawn, on) == []


def test_what_stays_is_not_filled_up() -> None:
    """A sub-model that stays is unchanged, even with time for more units."""
    drawn, on = roomy(ROOMY[1])
    lean = solve(drawn, on, Goal(min_retention=0.3, leave_idle=True))
    names = {a.device for a in lean.assignments}
    again = solve(drawn, on, Goal(min_retention=0.3), SolveOptions(start=lean))
    assert {a.device for a in again.assignments} == names
    assert again.assignments == lean.assignments


@pytest.mark.parametrize("num_classes", [13, 20])
def test_from_a_plan_for_many_classes_no_worse_one_comes(num_classes: int) -> None:
    """The result is at least as good as the earlier plan, though subsets cannot be enumerated."""
    drawn = random_profile(3, num_classes=num_classes, num_groups=8)
    on = random_fleet(drawn, 3, num_devices=4, tightness=2.0)
    plan = solve(drawn, on, floored(), SolveOptions(time_limit_s=2, deterministic=True))
    again = solve(drawn, on, floored(), SolveOptions(start=plan, time_limit_s=0))
    assert again.latency_us <= plan.latency_us
    assert check(again, drawn, on) == []


def test_the_most_accurate_plan_gives_idle_devices_work() -> None:
    """More devices retain more, unless devices are to be left idle."""
    drawn, on = spread(600)
    limit_ms = 3 * latency_of(drawn, on) / 1000
    goals = (Goal(objective="accuracy", max_latency_ms=limit_ms, leave_idle=idle) for idle in (True, False))
    few, many = (solve(drawn, on, goal) for goal in goals)
    assert few.value <= many.value
    assert len(few.assignments) < len(many.assignments)


# --- the second stage itself


def other_goals() -> Iterator[tuple[Instance, Placement]]:
    """Yield instances of `varied`, each with the placement of the best plan for another goal."""
    for seed in feasible_seeds()[:70]:
        profile, fleet, goal = varied(seed)
        other, instance = build_instance(profile, fleet, Goal(min_retention=0.2)), build_instance(profile, fleet, goal)
        request = SearchRequest(ObjectiveFunction(other))
        earlier = search_exact(SubsetCosts(other, NO_WARM_START), request, Clock(60)).placed or ()
        options = {
            (name, option.embed_dim, option.width_cost.precision): option
            for option in instance.options
            for name in instance.groups[option.group].names
        }
        # On the same options of this instance, where only needs and demands differ.
        places = [
            (name, options.get((name, p.option.embed_dim, p.option.width_cost.precision)), p)
            for name, p in by_device(other, earlier, {}).items()
        ]
        yield instance, {name: PlacedSubModel(o, p.classes, p.kept) for name, o, p in places if o is not None}


def move_costs(after: Placement, before: Placement) -> int:
    """Return the cost of all moves: a sub-model is changed where its classes or its option are."""
    cost = 0
    for name, p in after.items():
        old = before.get(name)
        cost += 2 * len(set(p.classes) - set(old.classes if old else ()))
        cost += old is None or (old.option, old.classes) != (p.option, p.classes)
    return cost


def test_it_is_as_good_as_the_best_and_moves_no_more() -> None:
    """The result is a plan with the best objective, which uses no more, and moves at most as much as the best plan."""
    compared = fewer = 0
    for instance, earlier in other_goals():
        name = instance.goal.objective
        if name == "accuracy":
            continue
        objective, costs = ObjectiveFunction(instance, name), SubsetCosts(instance, NO_WARM_START)
        best = search_exact(costs, SearchRequest(objective), Clock(60)).placed
        assert best is not None
        near = stay_near(instance, best, earlier, costs, objective, Clock(60))
        placed = list(near.values())
        assert is_plan(instance, placed)
        assert objective.value_of(placed) <= objective.value_of(best)
        assert (instance.used(p.option for p in placed) <= instance.used(p.option for p in best)).all()
        names = {device: g for g, group in enumerate(instance.groups) for device in group.names}
        assert all(names[device] == p.option.group for device, p in near.items())
        anew = by_device(instance, best, earlier)
        assert move_costs(near, earlier) <= move_costs(anew, earlier)
        compared += 1
        fewer += move_costs(near, earlier) < move_costs(anew, earlier)
    assert compared >= 20
    assert fewer >= 3


def test_out_of_time_the_best_is_kept() -> None:
    """Without any time, the best placement is given to the devices that it moves least on."""
    instance, earlier = next(other_goals())
    objective, costs = ObjectiveFunction(instance), SubsetCosts(instance, NO_WARM_START)
    best = search_exact(costs, SearchRequest(objective), Clock(60)).placed
    assert best is not None
    fresh = SubsetCosts(instance, NO_WARM_START)
    assert stay_near(instance, best, earlier, fresh, objective, Clock(0)) == by_device(instance, best, earlier)
