"""The exact method against HiGHS, where brute force is too slow: an independent model of the whole problem."""

import pytest

from benchmarks.solve.direct import solve_by_highs
from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal, Profile
from planner.solver import SolveOptions, solve
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import changed, scattered, sharpened


def middle_sized(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 5 or 6 classes on 3 or 4 devices, with 12 or 16 units; some with tables of latencies."""
    drawn = random_profile(
        7000 + seed, num_classes=5 + seed % 2, num_groups=4 + 2 * (seed % 3 == 0), kinds=("a",) if seed % 4 == 0 else ()
    )
    if seed % 5 < 4:
        # Sharing is worth while: classes differ, and little is fixed.
        widths = [width | {"fixed_macs": 0} for width in drawn.model_dump(mode="json")["widths"]]
        drawn = changed(scattered(sharpened(drawn)), widths=widths, fusion_hidden=1)
    on = random_fleet(drawn, 7000 + seed, num_devices=3 + seed % 2, tightness=(0.3, 0.6, 1.0)[seed % 3])
    if seed % 5 < 3:
        rates = [
            device | ({"macs_per_second": 1e7 * (2 + i % 3)} if device["macs_per_second"] else {})
            for i, device in enumerate(on.model_dump(mode="json")["devices"])
        ]
        on = changed(on, devices=rates, default_link={"bandwidth_mbps": 500, "latency_ms": 0.005})
    return drawn, on, floored() if seed % 2 else Goal(min_retention=0.5)


# Each takes a second: more only where a machine is busy.
PATIENT = SolveOptions(time_limit_s=600)


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_highs_agrees(first: int) -> None:
    """HiGHS finds the same latency to the microsecond, or no plan either."""
    shared = 0
    for seed in range(first, first + 10):
        drawn, on, goal = middle_sized(seed)
        other = solve_by_highs(drawn, on, goal, time_limit_s=600)
        if other.status == "infeasible":
            with pytest.raises(InfeasibleError, match=r"\ANo plan"):
                solve(drawn, on, goal, PATIENT)
            continue
        plan = solve(drawn, on, goal, PATIENT)
        shared += len(plan.assignments) > 1
        assert (plan.status, other.status) == ("optimal", "optimal"), (seed, other.note)
        assert plan.latency_us == other.objective_us, seed
    assert shared >= 2
