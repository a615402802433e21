"""Column generation and proofs by prices, against every division of the classes and against every class set."""

from functools import cache

import numpy as np
import pytest
from scipy.optimize import linprog

from planner.solver.large.attempts import RelaxedOf
from planner.solver.large.column_generation import Outcome
from planner.solver.large.price_bound import prove
from planner.solver.large.set_cover import ClassSet
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.sub_model_enumeration import subsets
from tests.helpers.thirteen_classes import best_us, generation_of, instance_of
from tests.helpers.varied_instances import feasible_seeds, varied_instance, varied_slowest_us


@cache
def eight(seed: int) -> Instance:
    """Return 8 classes on 2 to 4 devices, with little memory for every second seed."""
    of = random_profile(300 + seed, num_classes=8, widths=(8, 4) if seed % 3 == 0 else (8,), penalties=seed % 2 == 0)
    on = random_fleet(of, 300 + seed, num_devices=2 + seed % 3, tightness=(0.5, 1.5)[seed % 2])
    return build_instance(of, on, floored(min_retention=0.5))


@cache
def relaxed_us(seed: int, o: int) -> dict[tuple[int, ...], int]:
    """Return the latency [us] of every class set on an option of `eight` by its relaxation."""
    instance = eight(seed)
    option = instance.options[o]
    relaxation, found = Relaxation(instance, option), {}
    for classes in subsets(instance):
        bound = relaxation.bound(classes)
        found[classes] = NEVER if bound is None else int(bound.by_count[len(classes) - 1]) + option.alone_us
    return found


def uncovered(seed: int, latency_us: int) -> float:
    """Return what a fractional cover by all class sets within a time leaves uncovered."""
    instance = eight(seed)
    columns = [
        (option.group, classes)
        for o, option in enumerate(instance.options)
        for classes, us in relaxed_us(seed, o).items()
        if us <= latency_us
    ]
    num_classes, counts = instance.num_classes, [len(group.names) for group in instance.groups]
    rows = np.zeros((num_classes + len(counts), len(columns) + num_classes))
    for i, (g, classes) in enumerate(columns):
        rows[list(classes), i] = -1
        rows[num_classes + g, i] = 1
    rows[range(num_classes), range(len(columns), rows.shape[1])] = -1
    goal = np.r_[np.zeros(len(columns)), np.ones(num_classes)]
    return float(linprog(goal, A_ub=rows, b_ub=np.r_[-np.ones(num_classes), counts]).fun)


@pytest.mark.parametrize("seed", range(12))
def test_the_answer_is_that_of_all_class_sets(seed: int) -> None:
    """A time is refuted exactly where a fractional cover by all class sets within it leaves something uncovered."""
    times = sorted({us for o in range(len(eight(seed).options)) for us in relaxed_us(seed, o).values() if us < NEVER})
    if not times:
        return
    generation = generation_of(eight(seed))
    answers = set()
    for latency_us in {times[round(share * (len(times) - 1))] for share in (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)}:
        # Between two times of class sets, where rounding decides nothing.
        away_us = latency_us + 2
        if any(latency_us < us <= latency_us + 4 for us in times):
            continue
        outcome = generation.attempt(away_us, Clock(30))
        assert outcome == (Outcome.REFUTED if uncovered(seed, away_us) > 1e-6 else Outcome.COVERED)
        answers.add(outcome)
    assert answers


@pytest.mark.parametrize("seed", range(12))
def test_the_best_division_is_never_refuted(seed: int) -> None:
    """Of 13 classes on two devices, by trying all divisions: no proof at the optimum, and one far below it."""
    generation = generation_of(instance_of(seed))
    for share in (1.3, 1.0):
        assert generation.attempt(round(share * best_us(seed)), Clock(30)) == Outcome.COVERED
    assert generation.attempt(best_us(seed) // 2, Clock(30)) == Outcome.REFUTED


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_no_prices_refute_a_plan(first: int) -> None:
    """At the time of the best plan, with copies, survivors and shared media, neither search nor random prices prove."""
    rng = np.random.default_rng(first)
    for seed in set(feasible_seeds()) & set(range(first, first + 40)):
        instance, within_us = varied_instance(seed), varied_slowest_us(seed)
        generation = generation_of(instance)
        assert generation.attempt(within_us, Clock(30)) != Outcome.REFUTED
        for _ in range(4):
            prices = rng.random(len(generation.cover.rows)) * rng.integers(0, 2, len(generation.cover.rows))
            proof = prove(generation.cover, generation.conflicts, [], prices, within_us, Clock(30))
            assert not proof.holds


def test_survivors_need_more_time() -> None:
    """With copies, the least time that is not refuted rises: prices count each class as often as it must be served."""
    of = random_profile(9, num_classes=6)
    on = random_fleet(of, 9, num_devices=3, tightness=3.0)
    least = []
    for survive in (0, 2):
        generation = generation_of(build_instance(of, on, floored(survive=survive)))
        fast, slow = 0, 10**7
        while slow - fast > 1:
            middle = (fast + slow) // 2
            refuted = generation.attempt(middle, Clock(30)) == Outcome.REFUTED
            fast, slow = (middle, slow) if refuted else (fast, middle)
        least.append(slow)
    assert least[0] < least[1]


def test_identical_classes_are_one() -> None:
    """Where all classes are the same, one device serves all in the time of one, and nothing less is possible."""
    of = random_profile(5, num_classes=14, num_heads=3)
    document = of.model_dump(mode="json")
    for key in ("heads", "channel_groups"):
        document["importance"][key] = [document["importance"][key][0]] * 14
    instance = build_instance(type(of).model_validate(document), random_fleet(of, 5, tightness=3.0), floored())
    generation = generation_of(instance)
    single_us = min(int(c.single_us.min()) for c in generation.conflicts)
    assert generation.attempt(single_us + 1, Clock(30)) == Outcome.COVERED
    assert generation.attempt(single_us - 2, Clock(30)) == Outcome.REFUTED
    assert any(len(column.classes) == 14 for column in generation.columns(single_us + 1))


def whole(column: ClassSet, relaxed_of: RelaxedOf) -> ClassSet:
    """Serve all of a class set."""
    return column


def test_a_dive_takes_what_is_missing() -> None:
    """Of the sets it begins with, what the ones before leave over; a class that a set cannot serve is in another."""
    generation, asked = generation_of(instance_of(2)), list[ClassSet]()

    def all_but_one(column: ClassSet, relaxed_of: RelaxedOf) -> ClassSet:
        asked.append(column)
        return ClassSet(column.option, tuple(c for c in column.classes if c != 3 or len(column.classes) == 1))

    begun = [ClassSet(0, tuple(range(6))), ClassSet(1, tuple(range(2, 13)))]
    found = generation.dive(NEVER - 1, all_but_one, begun, Clock(30))
    assert asked[:2] == [begun[1], ClassSet(0, (0, 1, 3))]
    assert [column.classes for column in found] == [(2, *range(4, 13)), (0, 1)]
    # With both devices in use, class 3 has none.
    assert generation.cover.missing(found) == {3}


def test_work_is_counted() -> None:
    """With counted work, the same class sets come out again, and it ends."""
    found = []
    for _ in range(2):
        generation = generation_of(instance_of(1))
        outcomes = [generation.attempt(round(share * best_us(1)), Clock(0.3, deterministic=True)) for share in (0.7, 1)]
        columns = generation.columns(NEVER)
        found.append((outcomes, columns, generation.dive(best_us(1), whole, (), Clock(0.3, deterministic=True))))
    assert found[0] == found[1]
