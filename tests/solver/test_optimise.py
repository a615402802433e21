"""Each objective as searches: the bounds in the units of the objective, the start, and the retention by bisection."""

from dataclasses import replace

import pytest

from planner.schema import Goal
from planner.solver.optimise import PPM, SearchOutcome, optimise
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.placement import is_plan
from planner.solver.problem.search import no_progress
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


def test_the_highest_lowest_retention_equals_brute_force() -> None:
    """It is found to two parts per million within the latency limit, and its plan meets floors a millionth lower."""
    for goal, outcome, best in cases("accuracy", 15):
        if best is None:
            assert outcome.placed is None
            continue
        assert outcome.placed is not None
        assert outcome.bound is not None
        assert outcome.bound / PPM == pytest.approx(float(best.value), abs=2e-6)
        raised = outcome.instance
        assert raised.fleet_latency_us(outcome.placed) <= (goal.max_latency_us or 0)
        # At the bound itself, half a millionth that was rounded up may be missing.
        lower = build_instance(raised.profile, raised.fleet, goal, (outcome.bound - 1) / PPM)
        placed = [replace(p, option=lower.options[raised.options.index(p.option)]) for p in outcome.placed]
        assert is_plan(lower, placed)


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
