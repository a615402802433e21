"""Small instances with every feature that a bound must respect: shared media, relays, survivors, several options."""

from functools import cache

from planner.schema import Fleet, Goal, Profile
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import Instance
from tests.helpers.accuracy import predictable
from tests.helpers.brute_force import Best
from tests.helpers.random_instances import random_fleet, random_goal, random_profile, with_storage
from tests.helpers.solver_instances import best_of, sharpened

# From `STORED` on, some devices have a storage budget.
VARIED, STORED = range(204), 180


@cache
def varied(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 2 to 4 classes on 1 to 4 devices; shared media, relays, choices of width and precision, any goal."""
    of = random_profile(
        1000 + seed,
        num_classes=2 + seed % 3,
        widths=(8, 4) if seed % 4 == 0 else (8,),
        kinds=("a",) if seed % 5 < 2 else (),
        penalties=seed % 2 == 0,
    )
    of = predictable(sharpened(of) if seed % 7 < 4 else of, seed)
    on = random_fleet(
        of,
        1000 + seed,
        num_devices=1 + seed % 4,
        tightness=(0.5, 0.9, 1.6)[seed % 3],
        meshed=seed % 4 > 1,
        choices=seed % 3 > 0,
    )
    if seed >= STORED:
        of, on = with_storage(of, on, seed)
    return of, on, random_goal(of, on, 1000 + seed)


@cache
def varied_best(seed: int) -> Best | None:
    """Return what brute force finds for `varied`."""
    return best_of(*varied(seed))


@cache
def varied_instance(seed: int) -> Instance:
    """Return the instance of `varied`."""
    return build_instance(*varied(seed))


@cache
def feasible_seeds() -> list[int]:
    """Return the seeds of `varied` for which there is a plan."""
    return [seed for seed in VARIED if varied_best(seed) is not None]


def varied_slowest_us(seed: int) -> int:
    """Return the latency of the slowest device of the best plan [us]."""
    found = varied_best(seed)
    assert found is not None
    dims = sum(embed_dim for _, embed_dim in filter(None, found.picks))
    return found.latency_us - varied_instance(seed).fusion_us(dims)
