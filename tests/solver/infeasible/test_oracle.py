"""Feasibility questions against brute force."""

from planner.schema import Goal
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.infeasible.oracle import FeasibilityOracle, with_goal_changes
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, best_of
from tests.helpers.varied_instances import VARIED, varied, varied_instance


def test_answers_equal_brute_force() -> None:
    """One oracle, asked about many instances, knows for each whether it has a plan, and stays sure."""
    oracle = FeasibilityOracle(Clock(600), NO_WARM_START)
    answers = []
    for seed in VARIED[::3]:
        # Whatever the objective, the limits of latency and energy are left out here.
        free = {"objective": "latency", "max_latency_ms": None, "max_energy_mj": None}
        profile, fleet, goal = varied(seed)
        expected = best_of(profile, fleet, Goal.model_validate(goal.model_dump() | free)) is not None
        assert oracle.has_plan(with_goal_changes(varied_instance(seed), **free)) == expected, seed
        answers.append(expected)
    assert 10 < sum(answers) < len(answers) - 10
    assert oracle.sure


def test_limits_count_as_well() -> None:
    """A latency limit just below the least latency makes the answer no, one at it yes."""
    seeds = [seed for seed in VARIED if varied(seed)[2].objective == "energy"]
    compared = 0
    for seed in seeds[:12]:
        profile, fleet, goal = varied(seed)
        limitless = goal.model_dump() | {"max_energy_mj": None}
        fastest = best_of(
            profile, fleet, Goal.model_validate(limitless | {"objective": "latency", "max_latency_ms": None})
        )
        if fastest is None:
            continue
        compared += 1
        oracle = FeasibilityOracle(Clock(600), NO_WARM_START)
        for less_us, expected in ((0, True), (1, False)):
            changes = {"max_energy_mj": None, "max_latency_ms": (fastest.latency_us - less_us) / 1000}
            assert oracle.has_plan(with_goal_changes(varied_instance(seed), **changes)) == expected, seed
    assert compared >= 4


def test_out_of_time_it_is_not_sure() -> None:
    """A question without an answer in time is answered with None, and remembered."""
    profile = random_profile(1, num_classes=10, **DIGITS)
    instance = build_instance(profile, random_fleet(profile, 1, num_devices=4, tightness=0.3), floored(survive=1))
    oracle = FeasibilityOracle(Clock(0), NO_WARM_START)
    assert oracle.has_plan(instance) is None
    assert not oracle.sure


def test_later_questions_start_from_earlier_answers() -> None:
    """The warm start grows with every question."""
    oracle = FeasibilityOracle(Clock(600), NO_WARM_START)
    instance = varied_instance(2)
    oracle.has_plan(instance)
    known = sum(len(cuts.masks) for cuts in oracle.warm_start.cuts)
    assert known > 0
    oracle.has_plan(with_goal_changes(instance, min_retention=0.9))
    assert sum(len(cuts.masks) for cuts in oracle.warm_start.cuts) >= known
