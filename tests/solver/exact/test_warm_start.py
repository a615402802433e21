"""Warm starts: the same results as a solve from nothing, sooner.

The oracle is the solve without a warm start (which `test_benders` and `test_demands` compare with brute force), and
brute force itself for the cuts and sub-models of a warm start.
"""

import dataclasses
import itertools
import pickle
from functools import lru_cache
from typing import Any

import pytest

from planner.errors import InfeasibleError
from planner.library import folder, load_fleet, load_profile
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import SolveOptions, WarmStart, solve, solve_and_learn
from planner.solver.exact.sub_model_costs import SubModelCosts
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import fingerprint
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import NEVER
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.search import SearchRequest
from planner.solver.problem.subsets import classes_of
from planner.solver.search import InstanceSearch
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import CHANGED, changed, heavy_heads, middling, small, with_device

# Keys of the demo's goal: with devices left idle.
DEMO: Json = {"min_retention": 0.7, "leave_idle": True}

# Status, value, bound and latency of a plan, or None.
Outcome = tuple[str, float, float, int] | None


def outcome(drawn: Profile, on: Fleet, goal: Goal | None = None, **options: Any) -> Outcome:
    """Return status, value, bound and latency of the checked plan; None if there is none."""
    try:
        plan = solve(drawn, on, goal or floored(), SolveOptions(**options))
    except InfeasibleError:
        return None
    assert check(plan, drawn, on) == []
    return plan.status, plan.value, plan.bound, plan.latency_us


def warm_start_of(drawn: Profile, on: Fleet, goal: Goal | None = None) -> WarmStart:
    """Return the warm start that a solve leaves; an empty one where there is no plan."""
    try:
        return solve_and_learn(drawn, on, goal or floored())[1]
    except InfeasibleError:
        return WarmStart()


@lru_cache
def middling_warm_start(seed: int) -> WarmStart:
    """Return the warm start of `middling`."""
    return warm_start_of(*middling(seed))


def scaled(on: Fleet, factor: float) -> Fleet:
    """Return a fleet with all memory budgets scaled."""
    devices = on.model_dump(mode="json")["devices"]
    return changed(on, devices=[d | {"memory_budget": round(factor * d["memory_budget"])} for d in devices])


# --- the same results


@pytest.mark.parametrize("seed", CHANGED)
@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.3, 3.0])
def test_other_budgets(seed: int, factor: float) -> None:
    """With smaller and larger budgets, a warm start changes neither latency nor bound nor status."""
    drawn, on = middling(seed)
    fleet = scaled(on, factor)
    assert outcome(drawn, fleet, warm_start=middling_warm_start(seed)) == outcome(drawn, fleet)


@pytest.mark.parametrize("seed", CHANGED)
def test_other_floors(seed: int) -> None:
    """With higher and lower floors, a warm start changes nothing."""
    drawn, on = middling(seed)
    for goal in (floored(min_retention=0.35), floored(min_retention=0.2), floored(min_retention=0.8)):
        assert outcome(drawn, on, goal, warm_start=middling_warm_start(seed)) == outcome(drawn, on, goal)


@pytest.mark.parametrize("seed", CHANGED)
def test_other_devices_and_links(seed: int) -> None:
    """With other devices, orders and links, a warm start changes nothing."""
    drawn, on = middling(seed)
    devices = on.model_dump(mode="json")["devices"]
    fleets = [changed(on, devices=devices[::-1]), changed(on, devices=devices[:-1], links=[])]
    fleets.append(changed(on, devices=[*devices, devices[0] | {"name": "twin"}]))
    fleets.append(changed(on, links=[], default_link={"bandwidth_mbps": 500, "latency_ms": 0.01}))
    fleets.append(with_device(on, 1, kind=None, macs_per_second=3e8))
    for fleet in fleets:
        assert outcome(drawn, fleet, warm_start=middling_warm_start(seed)) == outcome(drawn, fleet)


def test_warm_starts_of_any_other_fleet_and_goal() -> None:
    """After a solve with other objectives and demands, value and bound are the same, or there is no plan."""
    outcomes: list[Outcome] = []
    for seed in range(7000, 7014):
        drawn = random_profile(seed, num_classes=3, penalties=seed % 2 == 0)
        on = random_fleet(drawn, seed, tightness=1.5, meshed=seed % 3 > 0, choices=True)
        other = random_fleet(drawn, seed, tightness=1.0, choices=True)
        known = warm_start_of(drawn, other, Goal(min_retention=0.4, forbid={"0": ("d0",)}))
        goal = random_goal(drawn, on, seed)
        outcomes.append(outcome(drawn, on, goal, warm_start=known))
        assert outcomes[-1] == outcome(drawn, on, goal)
    assert 3 <= sum(one is None for one in outcomes) <= 11


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_warm_starts_of_another_profile_are_not_used(seed: int) -> None:
    """Warm starts of other importance, sizes or times change nothing."""
    drawn, on, goal = small(seed)
    other = random_profile(seed + 1000, num_classes=len(drawn.classes))
    known = warm_start_of(other, random_fleet(other, seed), Goal(min_retention=0.3))
    assert outcome(drawn, on, goal, warm_start=known) == outcome(drawn, on, goal)


@pytest.mark.parametrize(
    "demand",
    [{"pin": {"0": ("d1",)}}, {"forbid": {"0": ("d0",), "1": ("d0",)}}, {"apart": (("0", "1"),)}, {"survive": 1}],
    ids=lambda demand: next(iter(demand)),
)
def test_demands_do_not_leak(demand: Json) -> None:
    """Demands of one solve have no effect on the next."""
    for seed in CHANGED:
        drawn, on = middling(seed)
        strict = floored(**demand)
        assert outcome(drawn, on, warm_start=warm_start_of(drawn, on, strict)) == outcome(drawn, on)
        assert outcome(drawn, on, strict, warm_start=middling_warm_start(seed)) == outcome(drawn, on, strict)


# --- cuts, proofs and sub-models


@pytest.mark.parametrize("seed", CHANGED[:6])
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.5])
def test_recalled_bounds_hold(seed: int, factor: float) -> None:
    """At other budgets, each recalled bound is at most the exact lowest time, and each sub-model is valid."""
    drawn, on = middling(seed)
    instance = build_instance(drawn, scaled(on, factor), floored(min_retention=0.5 if seed % 2 else 0.6))
    recalled, anew = SubsetCosts(instance, middling_warm_start(seed)), SubsetCosts(instance, WarmStart())
    for i, kept in recalled.kept.items():
        option = instance.options[i.option]
        assert instance.fits(option, kept)
        assert instance.meets_floors(option, i.classes, kept)
    for i, kept in list(recalled.kept.items())[:10]:
        anew.solve(i, Clock(10))
        assert (
            recalled.lower_bound[i.option, i.mask]
            <= anew.upper_bound[i.option, i.mask]
            <= instance.compute_us(instance.options[i.option], kept)
        )
        assert recalled.upper_bound[i.option, i.mask] < NEVER


@pytest.mark.parametrize("factor", [0.8, 1.1, 1.6])
@pytest.mark.parametrize("floor", [0.5, 0.3])
def test_cuts_hold_where_memory_has_a_price(factor: float, floor: float) -> None:
    """At other budgets, no cut is above the relaxation; at the same budget it equals it."""
    drawn = heavy_heads(num_heads=3, num_groups=6)
    priced = 0
    for seed in range(10):
        on = random_fleet(drawn, seed, tightness=0.6)
        then, now = (
            build_instance(drawn, on, floored()),
            build_instance(drawn, scaled(on, factor), Goal(min_retention=floor)),
        )
        known = SubsetCosts(then, WarmStart())
        for o, mask in itertools.product(range(len(then.options)), range(1, 16)):
            known.relax(Column(o, mask))
        for before, option in zip(then.options, now.options, strict=True):
            relaxation = Relaxation(now, option)
            for cuts in known.warm_start().of(fingerprint(now.units, option)):
                there, here = cuts.by_count(before), cuts.by_count(option)
                priced += int((cuts.per_grain * option.free_grains < -1).sum())
                for k, mask in enumerate(cuts.masks.tolist()):
                    size = mask.bit_count() - 1
                    solved = relaxation.bound(classes_of(mask))
                    assert here[k, size] <= (NEVER if solved is None else solved.by_count[size] + 1)
                    if cuts.same_terms(before):
                        own = Relaxation(then, before).bound(classes_of(mask))
                        assert there[k, size] == (NEVER if own is None else own.by_count[size])
    assert priced > 25


def demo() -> tuple[Profile, Fleet]:
    """Return the shipped profile and the fleet of the examples."""
    return load_profile("digits-vit"), load_fleet(folder("profiles").parent / "examples" / "devices.json")


@lru_cache
def demo_warm_start() -> tuple[Plan, WarmStart]:
    """Return the demo's plan and the warm start of its solve."""
    return solve_and_learn(*demo(), floored(**DEMO))


def test_a_warm_start_is_small_unchanged_and_picklable() -> None:
    """Under a megabyte for the demo; the same after use and after a round trip through pickle."""
    (drawn, on), (plan, known) = demo(), demo_warm_start()
    before = pickle.dumps(known)
    assert len(before) < 10**6
    copy = pickle.loads(before)
    larger = scaled(on, 1.25)
    plans = [
        solve(drawn, larger, floored(**DEMO), SolveOptions(start=plan, warm_start=which)) for which in (known, copy)
    ]
    assert plans[0].assignments == plans[1].assignments
    assert pickle.dumps(known) == before
    with pytest.raises(dataclasses.FrozenInstanceError, match="cuts"):
        known.cuts = ()  # type: ignore[misc]


def test_a_warm_start_saves_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the demo's warm start, with and without one device, hardly any relaxation or sub-model is solved."""
    (drawn, on), (plan, known) = demo(), demo_warm_start()
    solved: list[int] = []
    for name in ("bound", "solve"):
        method = getattr(SubModelCosts, name)

        def counted(*args: Any, method: Any = method) -> Any:
            solved.append(0)
            return method(*args)

        monkeypatch.setattr(SubModelCosts, name, counted)
    again = solve(drawn, on, floored(**DEMO), SolveOptions(warm_start=known))
    assert (again.latency_us, again.bound_us) == (plan.latency_us, plan.bound_us)
    assert len(solved) <= 20
    solved.clear()
    idle = solve(drawn, on, floored(**DEMO, leave_out=(plan.idle[0],)), SolveOptions(start=plan, warm_start=known))
    assert (idle.latency_us, idle.status) == (plan.latency_us, "optimal")
    assert len(solved) <= 20


def test_a_warm_start_stays_small_over_many_budgets() -> None:
    """Passed from solve to solve, it keeps the cuts of a few budgets for each device kind."""
    drawn, on = middling(CHANGED[1])
    known = WarmStart()
    sizes = []
    for step in range(24):
        fleet = scaled(on, 1.0 + step / 50)
        known = solve_and_learn(drawn, fleet, floored(), SolveOptions(warm_start=known))[1]
        sizes.append(len(known.cuts))
        assert outcome(drawn, fleet, warm_start=known) == outcome(drawn, fleet)
    assert sizes[-1] == sizes[12] <= 8 * len(build_instance(drawn, on, floored()).options)


def test_nothing_is_learned_of_many_classes() -> None:
    """Beyond a dozen classes no subsets are enumerated, so the given warm start comes back."""
    drawn = random_profile(3, num_classes=13, num_groups=8)
    on = random_fleet(drawn, 3, num_devices=4, tightness=2.0)
    options = SolveOptions(time_limit_s=0.5, deterministic=True)
    assert solve_and_learn(drawn, on, floored(), options)[1].cuts == ()


def test_a_search_out_of_time_keeps_its_warm_start() -> None:
    """Without any time, the given warm start comes back."""
    drawn, on = middling(CHANGED[0])
    instance = build_instance(drawn, on, floored())
    search = InstanceSearch(instance, Clock(0), middling_warm_start(CHANGED[0]))
    search.run(SearchRequest(ObjectiveFunction(instance)))
    assert {one.costs for one in search.warm_start.cuts} >= {one.costs for one in middling_warm_start(CHANGED[0]).cuts}
