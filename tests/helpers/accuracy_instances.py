"""Two devices and 8 units: small enough to try every plan, whatever it retains."""

from functools import cache

from planner.schema import Fleet, Profile
from tests.helpers.accuracy import class_floors, predictable
from tests.helpers.brute_accuracy import AllPlans, all_plans
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import sharpened

PAIRS = range(24)
# Floors of a mean class are no lower where they follow from an accuracy drop.
LEAST_FLOOR = 0.3


@cache
def pair(seed: int) -> tuple[Profile, Fleet]:
    """Return 2 to 5 classes with an accuracy model on two devices; some with 2 widths, tables, precisions."""
    of = random_profile(
        seed,
        num_classes=2 + seed % 4,
        widths=(8, 4) if seed % 3 == 0 else (8,),
        kinds=("a",) if seed % 2 else (),
        penalties=seed % 4 == 0,
    )
    of = predictable(sharpened(of) if seed % 5 < 2 else of, seed)
    on = random_fleet(of, seed, num_devices=2, tightness=(0.3, 0.6, 1.5)[seed % 3], choices=seed % 4 == 0)
    return of, on


@cache
def pair_plans(seed: int) -> AllPlans:
    """Return every plan of `pair` without floors."""
    return all_plans(*pair(seed))


@cache
def floored_plans(seed: int) -> AllPlans:
    """Return every plan of `pair` at the least floors for an accuracy drop."""
    of, on = pair(seed)
    return all_plans(of, on, class_floors(of.model_dump(mode="json")["accuracy_model"], LEAST_FLOOR))


def floored_pairs() -> list[int]:
    """Return the seeds of `pair` with a plan at these floors."""
    return [seed for seed in PAIRS if len(floored_plans(seed).losses)]
