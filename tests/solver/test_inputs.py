"""Absurd numbers of devices and models are refused in one sentence, or planned with."""

import subprocess
import sys

import pytest

from planner.errors import InfeasibleError, InputError, PlannerError
from planner.rules.check import check
from planner.schema import Fleet, Goal, Profile
from planner.solver import solve
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_profile

ABSURD = [
    {"memory_budget": 10**300},
    {"memory_budget": 10**19},
    {"runtime_overhead": 10**30},
    {"macs_per_second": 1e-300},
    {"macs_per_second": 1e300},
    {"active_power_w": 1e300},
]


@pytest.mark.parametrize("absurd", ABSURD, ids=str)
def test_absurd_numbers_are_refused_or_planned(absurd: Json) -> None:
    """An absurd number of a device is an input error or gives a plan."""
    devices = fleet_data()["devices"]
    devices[0] |= absurd
    try:
        alone = fleet(devices=devices[:1], links=[])
        plan = solve(profile(), alone, floored())
    except (PlannerError, ValueError) as error:
        # pydantic's ValidationError is what a file's InputError is made from.
        assert isinstance(error, (InputError, InfeasibleError)) or "validation error" in str(error)  # noqa: PT017
    else:
        assert check(plan, profile(), alone) == []


def test_the_solver_needs_no_torch() -> None:
    """Planning does not import torch."""
    code = "import planner.solver, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def with_width(**changes: float) -> Profile:
    """Return a small profile whose one width has some numbers replaced."""
    fields = random_profile(3).model_dump()
    fields["widths"][0].update(changes)
    return Profile.model_validate(fields)


@pytest.mark.parametrize("key", ["fixed_macs", "fixed_params"])
def test_absurd_profiles_are_refused(key: str) -> None:
    """Numbers beyond the limits of the format are refused."""
    with pytest.raises(ValueError, match=rf"widths\.0\.{key}\n *Input should be less than or equal to"):
        with_width(**{key: 10**30})


def test_large_budgets_and_fine_decimals_are_planned() -> None:
    """16 TiB in millionths of a byte would leave 64 bits; the plan is valid all the same."""
    drawn = with_width(head_activation_bytes=6528.123457)
    fields = random_fleet(random_profile(3), 3).model_dump()
    for device in fields["devices"]:
        device["memory_budget"] = 2**44
    on = Fleet.model_validate(fields)
    assert check(solve(drawn, on, floored()), drawn, on) == []


def test_a_model_with_one_class_is_planned() -> None:
    """One class on the fastest device that holds it, proven."""
    drawn = random_profile(5, num_classes=1, num_groups=4)
    on = random_fleet(drawn, 5, num_devices=3, tightness=2.0)
    plan = solve(drawn, on, Goal(min_retention=0.5))
    assert plan.status == "optimal"
    assert [a.classes for a in plan.assignments] == [drawn.classes]
