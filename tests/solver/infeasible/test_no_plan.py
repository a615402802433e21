"""The error of a search without a plan: infeasible, too slow, or out of time."""

import pytest

from planner.errors import InfeasibleError, PlannerError, TimeLimitError
from planner.schema import Goal
from planner.solver.infeasible.no_plan import no_plan_error
from planner.solver.optimise import SearchOutcome
from planner.solver.options import SolveOptions
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel
from tests.helpers.pencil import fleet, profile

# The anchor head alone, at embed dim 4, takes 600 MACs / 3 = 200 us on the gateway, its fusion 20 us.
LEAST_US = 220


def least_plan(limit_ms: float | None) -> tuple[Instance, tuple[PlacedSubModel, ...]]:
    """Return the pencil instance without floors, and a plan of the anchor head alone on the gateway."""
    instance = build_instance(profile(), fleet(), Goal(min_retention=0.0, max_latency_ms=limit_ms))
    (option,) = [o for o in instance.options if (o.device.name, o.embed_dim) == ("gateway", 4)]
    return instance, (PlacedSubModel(option, (0, 1), instance.units.always_kept),)


def error_of(limit_ms: float | None, with_plan: bool, bound: int | None, advice: bool = True) -> PlannerError:
    """Return the error for the result of a search."""
    instance, placed = least_plan(limit_ms)
    outcome = SearchOutcome(instance, placed if with_plan else None, bound, None)
    return no_plan_error(instance, outcome, Clock(2.0), SolveOptions(advice=advice))


def test_no_plan_at_all_is_infeasible() -> None:
    """Without a bound there is no plan: the reason is explained, with or without advice."""
    for advice in (True, False):
        error = error_of(None, with_plan=False, bound=None, advice=advice)
        assert isinstance(error, InfeasibleError)
        assert str(error).startswith("No plan: ")
        assert ("that works" in str(error) or "No smaller change" in str(error)) == advice


@pytest.mark.parametrize("with_plan", [False, True])
def test_a_bound_above_the_limit_is_too_slow(with_plan: bool) -> None:
    """No plan can be within the limit; one that was found says which limit would do."""
    error = error_of(0.1, with_plan, bound=LEAST_US)
    assert isinstance(error, InfeasibleError)
    assert str(error) == (
        "No plan within 0.1 ms: no plan takes less than 0.220 ms. Smallest change that works: `max_latency_ms=0.22`."
    )
    assert "change" not in str(error_of(0.1, with_plan, LEAST_US, advice=False))


def test_out_of_time_nothing_is_impossible() -> None:
    """With a bound within the limit and no plan, or one that is too slow, time was too short."""
    error = error_of(0.1, with_plan=False, bound=50)
    assert isinstance(error, TimeLimitError)
    assert str(error) == "No plan found within 2 s (not proven impossible). Raise `time_limit_s`."
    error = error_of(0.1, with_plan=True, bound=50)
    assert isinstance(error, TimeLimitError)
    assert str(error) == (
        "No plan within 0.1 ms was found; the best takes 0.220 ms, and none takes less than 0.050 ms. "
        "Raise `time_limit_s` or `max_latency_ms`."
    )
