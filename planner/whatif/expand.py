"""Axes become scenarios: one for each alternative, or for each combination; those that are the same only once."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.errors import InputError
from planner.schema import TODAY, sha256_of
from planner.schema.base import sha256_of_json
from planner.whatif.case import Case, GoneError, ImpossibleError
from planner.whatif.change_request import Axis, Scenario, joined
from planner.whatif.changes import applied

MOST_SCENARIOS = 10_000


@dataclass(frozen=True)
class ExpandedScenario:
    """A scenario and what it comes to: equal keys are equal fleets and goals."""

    scenario: Scenario
    key: str


def expand(axes: Sequence[Axis], today: Case, cross: bool = False) -> list[ExpandedScenario]:
    """Return the scenarios, each tried on today's fleet: mistakes are found before anything is solved.

    Args:
        axes: Alternatives; of each axis one at a time.
        today: The fleet and goal that are changed.
        cross: Every combination, each axis also left as it is, instead of each alternative for itself.

    Raises:
        InputError: If a change is a mistake, or there are too many scenarios.
    """
    number = math.prod(len(axis) + 1 for axis in axes) - 1 if cross else sum(map(len, axes))
    if number > MOST_SCENARIOS:
        raise InputError(f"There must be at most {MOST_SCENARIOS:,} scenarios, got {number:,}: ask for fewer at once.")
    found: dict[str, ExpandedScenario] = {}
    same = {key_of(today)} if cross else set()
    for parts in itertools.product(*[(None, *axis) for axis in axes]) if cross else zip(itertools.chain(*axes)):
        chosen = [part for part in parts if part is not None]
        if not chosen:
            continue
        scenario = chosen[0] if len(chosen) == 1 else joined(chosen)
        key = _key(scenario, today, combined=len(chosen) > 1)
        if key is None or (cross and key in same):
            continue
        same.add(key)
        if scenario.name in found and found[scenario.name].key != key:
            raise InputError(f"scenarios: names must differ, {scenario.name!r} is used twice.")
        found[scenario.name] = ExpandedScenario(scenario, key)
    return list(found.values())


def key_of(case: Case) -> str:
    """Return a hash of a fleet and a goal."""
    return sha256_of_json([sha256_of(case.fleet), sha256_of(case.goal)])


def _key(scenario: Scenario, today: Case, combined: bool) -> str | None:
    """Return what a scenario comes to; None for a combination in which one change takes away what another is about."""
    if scenario.name == TODAY:
        raise InputError(f"{scenario.source}: {TODAY!r} is the name of the fleet as it is: give it another.")
    try:
        return key_of(applied(today, scenario.changes))
    except ImpossibleError as error:
        gone = isinstance(error, GoneError) and combined
        return None if gone else sha256_of_json([scenario.name, str(error)])
    except InputError as error:
        raise InputError(f"{scenario.source}: {error}") from None
