"""Cheapest sub-models by branching on counts, against enumeration and against one model of CP-SAT."""

import itertools

import pytest

from benchmarks.solve.instances import Size, instance
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER
from planner.solver.problem.option import Option
from planner.solver.submodels import by_counts, knapsack
from planner.solver.submodels.by_counts import CheapestSubModels
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS
from tests.helpers.sub_model_enumeration import (
    NO_SUB_MODEL,
    SEEDS,
    all_kept,
    cases,
    cheapest_by_enumeration,
    instance_of,
    table_of,
)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_the_cheapest(seed: int) -> None:
    """The proven time equals enumeration, wherever there is a sub-model, with charges, and where memory binds."""
    solvers = [CheapestSubModels(instance_of(seed), option) for option in instance_of(seed).options]
    for of, o, option, classes in cases(seed):
        answer = solvers[o].cheapest(classes, Clock(60))
        time_us = cheapest_by_enumeration(seed, o, classes)
        if time_us == NO_SUB_MODEL:
            assert (answer.bound, answer.kept) == (None, None)
            continue
        assert answer.kept is not None
        assert of.compute_us(option, answer.kept) == answer.bound == time_us
        assert of.can_serve(option, classes, answer.kept)


@pytest.mark.parametrize("limits", [(0, 12), (150, 0)], ids=["no nodes", "no refuted counts"])
@pytest.mark.parametrize("seed", SEEDS[::4])
def test_one_model_takes_over(seed: int, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What branching leaves open is settled all the same."""
    monkeypatch.setattr(by_counts, "_MAX_NODES", limits[0])
    monkeypatch.setattr(by_counts, "_MAX_REFUTED", limits[1])
    test_it_is_the_cheapest(seed)


@pytest.mark.parametrize("seed", SEEDS[1::4])
def test_enough_is_enough_and_beyond_is_beyond(seed: int) -> None:
    """Any sub-model that is fast enough will do, and any bound that is high enough; neither is ever wrong."""
    solvers = [CheapestSubModels(instance_of(seed), option) for option in instance_of(seed).options]
    for of, o, option, classes in cases(seed):
        time_us = cheapest_by_enumeration(seed, o, classes)
        if time_us == NO_SUB_MODEL:
            continue
        soon = solvers[o].cheapest(classes, Clock(60), enough_us=time_us + 20)
        assert soon.kept is not None
        assert time_us <= of.compute_us(option, soon.kept) <= time_us + 20
        assert soon.bound is not None
        assert soon.bound <= time_us
        for beyond_us in (time_us // 2, time_us, time_us + 1, NEVER):
            found = solvers[o].cheapest(classes, Clock(60), beyond_us=beyond_us)
            assert found.bound is not None
            assert min(beyond_us, time_us) <= found.bound <= time_us


def counts_of(option: Option, kept: tuple[int, ...]) -> tuple[dict[int, int], dict[int, int]]:
    """Return how many units of each number of ticks are kept, and how many sets of each charge have some."""
    costs = option.costs
    used = [p for p, unit_set in enumerate(costs.unit_sets) if set(unit_set.members.tolist()) & set(kept)]
    return (
        {
            ticks: sum(u in kept for u in members)
            for ticks, members in knapsack.alike(costs.unit_ticks.tolist()).items()
        },
        {ticks: sum(p in used for p in members) for ticks, members in knapsack.alike(costs.charges.tolist()).items()},
    )


def test_counts_are_those_that_were_asked_for() -> None:
    """A sub-model is found for given counts if and only if enumeration has one with these counts."""
    found = refuted = 0
    for seed in SEEDS[::6]:
        for of, o, option, classes in list(cases(seed))[::5]:
            possible = itertools.compress(all_kept(len(of.units)), table_of(seed, o).possible(classes))
            by_counts = [(counts_of(option, kept), kept) for kept in possible]
            for some in all_kept(len(of.units))[::60]:
                counts = counts_of(option, some)
                rows = [kept for other, kept in by_counts if other == counts]
                answer = knapsack.with_counts(of, option, classes, counts, Clock(10))
                assert (answer.kept is None) == (not rows)
                assert answer.kept is None or answer.kept in rows
                found, refuted = found + bool(rows), refuted + (not rows)
    assert min(found, refuted) >= 10


def test_hundreds_of_units_take_moments() -> None:
    """Ten classes of a ViT-Base, which CP-SAT as one model does not settle in counted minutes, are settled."""
    of = build_instance(*instance(Size("10x4", 10, 4, 3)), floored(min_retention=0.7))
    option, classes = of.options[0], tuple(range(10))
    clock = Clock(3, deterministic=True)
    answer = CheapestSubModels(of, option).cheapest(classes, clock)
    assert not clock.expired()
    assert answer.kept is not None
    assert of.can_serve(option, classes, answer.kept)
    assert of.compute_us(option, answer.kept) == answer.bound
    needs = option.need[:, 9] / IMPORTANCE_SCALE
    relaxed = Relaxation(of, option).relaxed(classes, needs)
    assert relaxed is not None
    assert relaxed.value - 1 <= answer.bound <= 1.01 * relaxed.value


def test_out_of_time_nothing_is_claimed() -> None:
    """Without any time there is a valid bound and perhaps a sub-model."""
    profile = random_profile(12, num_classes=10, **DIGITS)
    of = build_instance(profile, random_fleet(profile, 12, tightness=0.6), floored())
    option, classes = of.options[0], tuple(range(4))
    at_last = CheapestSubModels(of, option).cheapest(classes, Clock(60))
    at_once = CheapestSubModels(of, option).cheapest(classes, Clock(0))
    assert at_last.kept is not None
    assert at_last.bound == of.compute_us(option, at_last.kept)
    assert at_once.bound is not None
    assert at_once.bound <= at_last.bound
