"""Each objective as searches: the bounds in the units of the objective, the start, and the floors for accuracy."""

import pytest

from planner.schema import Goal
from planner.solver.optimise import SearchOutcome, optimise
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.placement import is_plan
from planner.solver.problem.search import no_progress
from planner.solver.second_stage.use_slack import use_slack
from tests.helpers.accuracy import loss_of_placement
from tests.helpers.brute_force import Best
from tests.helpers.solver_instances import best_of
from tests.helpers.varied_instances import VARIED, varied


def cases(objective: str, count: int) -> list[tuple[Goal, SearchOutcome, Best | None]]:
    """Return goals of an objective, what the search finds, and what brute force does."""
    found = []
    for seed in [seed for seed in VARIED if varied(seed)[2].objective == objective][:count]:
        profile, fleet, goal = varied(seed)
        outcome = optimise(build_instance(profile, fleet, goal), Clock(60), no_progress)
        found.append((goal, outcome, best_of(profile, fleet, goal)))
    assert {best is None for _, _, best in found} == {True, False}
    return found


def test_latency_and_devices_equal_brute_force() -> None:
    """The bound is the optimum, and the placement a plan that attains it; fewest devices at the least latency."""
    for objective in ("latency", "devices"):
        for goal, outcome, best in cases(objective, 15):
            limit_us = goal.max_latency_us
            if best is None:
                assert outcome.placed is None or outcome.instance.fleet_latency_us(outcome.placed) > (limit_us or 0)
                continue
            assert outcome.placed is not None
            assert outcome.bound == best.value
            assert is_plan(outcome.instance, outcome.placed)
            assert outcome.instance.fleet_latency_us(outcome.placed) == best.latency_us


def test_energy_equals_brute_force() -> None:
    """The bound is the least energy in the instance's units."""
    for _, outcome, best in cases("energy", 15):
        if best is None:
            assert (outcome.placed, outcome.bound) == (None, None)
            continue
        assert outcome.placed is not None
        assert outcome.instance.energy(outcome.placed) == outcome.bound
        assert outcome.bound == best.value * 1000 * outcome.instance.energy_scale


def test_plans_for_accuracy_are_within_the_limit_at_floors_that_can_be_met() -> None:
    """The placement is a plan at the floors that were reached, within the latency limit, wherever there is one.

    The bound is a share, and no lower than the accuracy of what the second stage makes of the placement.
    """
    for goal, outcome, best in cases("accuracy", 15):
        if best is None:
            assert outcome.placed is None
            continue
        instance = outcome.instance
        assert outcome.placed is not None
        assert outcome.bound is not None
        assert is_plan(instance, outcome.placed)
        assert instance.fleet_latency_us(outcome.placed) <= (goal.max_latency_us or 0)
        assert instance.retention_floor is not None
        assert (instance.floors >= (goal.min_retention or 0.0) - 1e-9).all()
        model = instance.profile.accuracy_model
        assert model is not None
        richer = use_slack(instance, outcome.placed, Clock(60))
        assert 1 - model.whole_error - loss_of_placement(instance, richer) <= outcome.bound + 1e-9
        assert outcome.bound <= 1


def test_progress_is_in_the_units_of_the_file() -> None:
    """Energies are reported in millijoules; the last report is the result."""
    seed = next(seed for seed in VARIED if varied(seed)[2].objective == "energy" and best_of(*varied(seed)))
    instance = build_instance(*varied(seed))
    reports: list[tuple[float | None, float]] = []
    outcome = optimise(instance, Clock(60), lambda best, bound: reports.append((best, bound)))
    assert outcome.placed is not None
    energy_mj = instance.energy(outcome.placed) / instance.energy_scale / 1000
    assert list(reports[-1]) == pytest.approx([energy_mj, energy_mj])


def test_an_earlier_plan_is_the_start() -> None:
    """Without any time, the placement that was given comes back, with a bound."""
    seed = next(seed for seed in VARIED if varied(seed)[2].objective == "latency" and best_of(*varied(seed)))
    instance = build_instance(*varied(seed))
    found = optimise(instance, Clock(60), no_progress)
    assert found.placed is not None
    again = optimise(instance, Clock(0), no_progress, earlier=found.placed)
    assert again.placed == found.placed
    assert again.bound is not None
    assert found.bound is not None
    assert again.bound <= found.bound
