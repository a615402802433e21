"""What one solve learned, handed to another: the same answers as without, sooner.

The oracle is the solve without experience (which `test_solver_exact` and `test_demands` compare with
brute force), and brute force itself for what is learned.
"""

import dataclasses
import itertools
import pickle
from functools import lru_cache

import pytest

from planner.errors import InfeasibleError
from planner.library import folder, load_fleet, load_profile
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import WarmStart, solve, solve_and_learn
from planner.solver.exact.assignment import Column, classes_of
from planner.solver.exact.master import ObjectiveFunction
from planner.solver.exact.subset_costs import ComputeTime, SubsetCosts
from planner.solver.exact.warm_start import fingerprint
from planner.solver.optimise import InstanceSearch, no_progress
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.submodels.knapsack import Relaxation
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import CHANGED, Json, changed, middling, small, with_device

# What a plan is worth, and what is proven of it; or that there is none.
Verdict = tuple[str, float, float, int] | None


def judged(drawn: Profile, on: Fleet, goal: Goal | None = None, **begin: Json) -> Verdict:
    """Return status, value, bound and latency of the plan, which has passed its check; None if there is none."""
    try:
        plan = solve(drawn, on, goal, **begin)
    except InfeasibleError:
        return None
    assert check(plan, drawn, on) == []
    return plan.status, plan.value, plan.bound, plan.latency_us


def learned_of(drawn: Profile, on: Fleet, goal: Goal | None = None) -> WarmStart:
    """Return what a solve learned; nothing where there is no plan."""
    try:
        return solve_and_learn(drawn, on, goal)[1]
    except InfeasibleError:
        return WarmStart()


@lru_cache
def learned(seed: int) -> WarmStart:
    """Return what the solve of `middling` learned."""
    return learned_of(*middling(seed))


def scaled(on: Fleet, factor: float) -> Fleet:
    """Return a fleet with all memory budgets scaled."""
    devices = on.model_dump(mode="json")["devices"]
    return changed(on, devices=[d | {"memory_budget": round(factor * d["memory_budget"])} for d in devices])


def knowledge_of(instance: Instance, experience: WarmStart) -> SubsetCosts:
    """Return what is known before a search begins."""
    return SubsetCosts(instance, ComputeTime(instance), experience)


# --- the same answers


@pytest.mark.parametrize("seed", CHANGED)
@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.3, 3.0])
def test_other_budgets(seed: int, factor: float) -> None:
    """With smaller and larger budgets, the same latency, bound and status as without experience."""
    drawn, on = middling(seed)
    fleet = scaled(on, factor)
    assert judged(drawn, fleet, experience=learned(seed)) == judged(drawn, fleet)


@pytest.mark.parametrize("seed", CHANGED)
def test_other_floors(seed: int) -> None:
    """With higher and lower floors, by retention and by accuracy drop."""
    drawn, on = middling(seed)
    for goal in (Goal(max_accuracy_drop=0.05), Goal(min_retention=0.2), Goal(min_retention=0.8)):
        assert judged(drawn, on, goal, experience=learned(seed)) == judged(drawn, on, goal)


@pytest.mark.parametrize("seed", CHANGED)
def test_other_devices_and_links(seed: int) -> None:
    """Back to front, without a device, with a twin, with faster links, with a faster device."""
    drawn, on = middling(seed)
    devices = on.model_dump(mode="json")["devices"]
    fleets = [changed(on, devices=devices[::-1]), changed(on, devices=devices[:-1], links=[])]
    fleets.append(changed(on, devices=[*devices, devices[0] | {"name": "twin"}]))
    fleets.append(changed(on, links=[], default_link={"bandwidth_mbps": 500, "latency_ms": 0.01}))
    fleets.append(with_device(on, 1, kind=None, macs_per_second=3e8))
    for fleet in fleets:
        assert judged(drawn, fleet, experience=learned(seed)) == judged(drawn, fleet)


def test_experience_of_any_other_fleet_and_goal() -> None:
    """All objectives and demands, after a solve with others: the same value and bound, or no plan."""
    verdicts: list[Verdict] = []
    for seed in range(7000, 7014):
        drawn = random_profile(seed, num_classes=3, penalties=seed % 2 == 0)
        on = random_fleet(drawn, seed, tightness=1.5, meshed=seed % 3 > 0, choices=True)
        other = random_fleet(drawn, seed, tightness=1.0, choices=True)
        known = learned_of(drawn, other, Goal(min_retention=0.4, forbid={"0": ("d0",)}))
        goal = random_goal(drawn, on, seed)
        verdicts.append(judged(drawn, on, goal, experience=known))
        assert verdicts[-1] == judged(drawn, on, goal)
    assert 3 <= sum(verdict is None for verdict in verdicts) <= 11


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_experience_of_another_profile_is_not_used(seed: int) -> None:
    """What was learned of other importances, sizes or times says nothing, and changes nothing."""
    drawn, on, goal = small(seed)
    other = random_profile(seed + 1000, num_classes=len(drawn.classes))
    known = learned_of(other, random_fleet(other, seed), Goal(min_retention=0.3))
    assert judged(drawn, on, goal, experience=known) == judged(drawn, on, goal)


@pytest.mark.parametrize(
    "demand",
    [{"pin": {"0": ("d1",)}}, {"forbid": {"0": ("d0",), "1": ("d0",)}}, {"apart": (("0", "1"),)}, {"survive": 1}],
    ids=lambda demand: next(iter(demand)),
)
def test_demands_do_not_leak(demand: Json) -> None:
    """What is forbidden in one solve is not forbidden in the next, and the other way round."""
    for seed in CHANGED:
        drawn, on = middling(seed)
        strict = Goal.model_validate(demand)
        assert judged(drawn, on, experience=learned_of(drawn, on, strict)) == judged(drawn, on)
        assert judged(drawn, on, strict, experience=learned(seed)) == judged(drawn, on, strict)


# --- what is handed on


@pytest.mark.parametrize("seed", CHANGED[:6])
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.5])
def test_what_is_recalled_holds(seed: int, factor: float) -> None:
    """At other budgets, each recalled bound is at most the exact least time, and each sub-model is one."""
    drawn, on = middling(seed)
    instance = build_instance(drawn, scaled(on, factor), Goal(min_retention=0.5) if seed % 2 else Goal())
    recalled, anew = knowledge_of(instance, learned(seed)), knowledge_of(instance, WarmStart())
    for i, kept in recalled.kept.items():
        option = instance.options[i.option]
        assert instance.fits(option, kept)
        assert instance.meets_floors(option, i.classes, kept)
    for i, kept in list(recalled.kept.items())[:10]:
        anew.examine(i, Clock(10))
        assert (
            recalled.low[i.option, i.mask]
            <= anew.high[i.option, i.mask]
            <= instance.compute_us(instance.options[i.option], kept)
        )
        assert recalled.high[i.option, i.mask] < NEVER


def heavy_heads() -> Profile:
    """Return a profile whose heads take little time and much memory, so that memory has a price."""
    drawn = random_profile(11, num_classes=4, num_groups=6)
    widths = [w | {"head_params": [900, 900], "head_macs": [200, 200]} for w in drawn.model_dump(mode="json")["widths"]]
    return changed(drawn, widths=widths)


@pytest.mark.parametrize("factor", [0.8, 1.1, 1.6])
@pytest.mark.parametrize("drop", [0.02, 0.05])
def test_cuts_hold_where_memory_has_a_price(factor: float, drop: float) -> None:
    """At other budgets, no cut is above the relaxation solved there; and at the same budget, it is its value."""
    drawn = heavy_heads()
    priced = 0
    for seed in range(6):
        on = random_fleet(drawn, seed, tightness=0.6)
        then, now = (
            build_instance(drawn, on, Goal()),
            build_instance(drawn, scaled(on, factor), Goal(max_accuracy_drop=drop)),
        )
        known = knowledge_of(then, WarmStart())
        for o, mask in itertools.product(range(len(then.options)), range(1, 16)):
            known.bound(Column(o, mask))
        for before, option in zip(then.options, now.options, strict=True):
            relaxation = Relaxation(now, option)
            for lessons in known.experience().of(fingerprint(now.units, option)):
                there, here = lessons.by_count(before), lessons.by_count(option)
                priced += int((lessons.per_grain * option.free_grains < -1).sum())
                for k, mask in enumerate(lessons.masks.tolist()):
                    size = mask.bit_count() - 1
                    solved = relaxation.bound(classes_of(mask))
                    assert here[k, size] <= (NEVER if solved is None else solved.by_count[size] + 1)
                    if lessons.same_terms(before):
                        own = Relaxation(then, before).bound(classes_of(mask))
                        assert there[k, size] == (NEVER if own is None else own.by_count[size])
    assert priced > 25


def demo() -> tuple[Profile, Fleet]:
    """Return the shipped profile and the fleet of the examples."""
    return load_profile("digits-vit"), load_fleet(folder("profiles").parent / "examples" / "devices.json")


@lru_cache
def demo_learned() -> tuple[Plan, WarmStart]:
    """Return the demo's plan, and what its solve learned."""
    return solve_and_learn(*demo())


def test_an_experience_is_small_unchanged_and_travels() -> None:
    """Under a megabyte for the demo; the same before and after use, and after a round trip through pickle."""
    (drawn, on), (plan, known) = demo(), demo_learned()
    before = pickle.dumps(known)
    assert len(before) < 10**6
    copy = pickle.loads(before)
    larger = scaled(on, 1.25)
    plans = [solve(drawn, larger, start=plan, experience=which) for which in (known, copy)]
    assert plans[0].assignments == plans[1].assignments
    assert pickle.dumps(known) == before
    with pytest.raises(dataclasses.FrozenInstanceError, match="lessons"):
        known.lessons = ()  # type: ignore[misc]


def test_what_was_learned_need_not_be_learned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the demo's own experience, and without one of its devices, hardly any relaxation or sub-model is solved."""
    (drawn, on), (plan, known) = demo(), demo_learned()
    solved: list[int] = []
    for name in ("bound", "least"):
        method = getattr(ComputeTime, name)
        monkeypatch.setattr(ComputeTime, name, lambda *args, method=method: solved.append(0) or method(*args))
    again = solve(drawn, on, experience=known)
    assert (again.latency_us, again.bound_us) == (plan.latency_us, plan.bound_us)
    assert len(solved) <= 20
    solved.clear()
    idle = solve(drawn, on, Goal(leave_out=(plan.idle[0],)), start=plan, experience=known)
    assert (idle.latency_us, idle.status) == (plan.latency_us, "optimal")
    assert len(solved) <= 20


def test_experience_of_many_budgets_does_not_grow_without_end() -> None:
    """Handed on from solve to solve, it keeps the lessons of a few budgets for each kind of device."""
    drawn, on = middling(CHANGED[1])
    known = WarmStart()
    sizes = []
    for step in range(24):
        fleet = scaled(on, 1.0 + step / 50)
        known = solve_and_learn(drawn, fleet, experience=known)[1]
        sizes.append(len(known.lessons))
        assert judged(drawn, fleet, experience=known) == judged(drawn, fleet)
    assert sizes[-1] == sizes[12] <= 8 * len(build_instance(drawn, on, Goal()).options)


def test_nothing_is_learned_of_many_classes() -> None:
    """Beyond a dozen classes there are no subsets to learn about: what was given comes back."""
    drawn = random_profile(3, num_classes=13, num_groups=8)
    on = random_fleet(drawn, 3, num_devices=4, tightness=2.0)
    assert solve_and_learn(drawn, on, time_limit_s=0.5)[1].lessons == ()


def test_a_search_out_of_time_still_hands_on_what_it_knows() -> None:
    """With no time at all, what was given is there afterwards."""
    drawn, on = middling(CHANGED[0])
    instance = build_instance(drawn, on, Goal())
    search = InstanceSearch(instance, Clock(0), learned(CHANGED[0]))
    search.run(ObjectiveFunction(instance), no_progress)
    assert {one.costs for one in search.experience.lessons} >= {one.costs for one in learned(CHANGED[0]).lessons}
