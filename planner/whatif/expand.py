"""Expansion of axes into scenarios: one for each alternative or each combination, without duplicates."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.errors import InputError
from planner.schema import TODAY, sha256_of
from planner.schema.base import sha256_of_json
from planner.whatif.case import Case, ImpossibleError, RemovedError
from planner.whatif.change_request import Axis, Scenario, combine
from planner.whatif.changes import apply_changes

MAX_SCENARIOS = 10_000


@dataclass(frozen=True)
class ExpandedScenario:
    """Scenario with the hash of its fleet and goal: equal keys mean equal fleets and goals."""

    scenario: Scenario
    key: str


def expand(axes: Sequence[Axis], today: Case, cross: bool = False) -> list[ExpandedScenario]:
    """Return the scenarios, each applied to today's fleet, so that mistakes are found before anything is solved.

    Args:
        axes: Axes of alternatives, of which one holds at a time.
        today: Fleet and goal that are changed.
        cross: Take every combination, in which each axis may also be left out, instead of single alternatives.

    Raises:
        InputError: If a change is a mistake, or there are too many scenarios.
    """
    number = math.prod(len(axis) + 1 for axis in axes) - 1 if cross else sum(map(len, axes))
    if number > MAX_SCENARIOS:
        raise InputError(f"There must be at most {MAX_SCENARIOS:,} scenarios, got {number:,}: ask for fewer at once.")
    found: dict[str, ExpandedScenario] = {}
    seen = {case_key(today)} if cross else set()
    for parts in itertools.product(*[(None, *axis) for axis in axes]) if cross else zip(itertools.chain(*axes)):
        chosen = [part for part in parts if part is not None]
        if not chosen:
            continue
        scenario = chosen[0] if len(chosen) == 1 else combine(chosen)
        key = _key(scenario, today, combined=len(chosen) > 1)
        if key is None or (cross and key in seen):
            continue
        seen.add(key)
        if scenario.name in found and found[scenario.name].key != key:
            raise InputError(f"scenarios: names must differ, {scenario.name!r} is used twice.")
        found[scenario.name] = ExpandedScenario(scenario, key)
    return list(found.values())


def case_key(case: Case) -> str:
    """Return a hash of a fleet and a goal."""
    return sha256_of_json([sha256_of(case.fleet), sha256_of(case.goal)])


def _key(scenario: Scenario, today: Case, combined: bool) -> str | None:
    """Return the hash of a scenario's case; None for a combination in which one change removes a device of another."""
    if scenario.name == TODAY:
        raise InputError(f"{scenario.source}: {TODAY!r} is the name of the fleet as it is: give it another.")
    try:
        return case_key(apply_changes(today, scenario.changes))
    except ImpossibleError as error:
        removed = isinstance(error, RemovedError) and combined
        return None if removed else sha256_of_json([scenario.name, str(error)])
    except InputError as error:
        raise InputError(f"{scenario.source}: {error}") from None
