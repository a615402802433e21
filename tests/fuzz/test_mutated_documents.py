"""Mutants of every document, read and used: each is accepted, or refused in one sentence that names the file."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from planner.errors import InputError
from planner.library import load_profile, read_plan
from planner.network.checkpoint import load_card, whole_shape
from planner.report.profile_text import profile_text
from planner.report.rehearsal_text import rehearsal_text
from planner.report.text import plan_text
from planner.rules.check import check
from planner.schema import (
    DOCUMENTS,
    Fleet,
    Goal,
    GoalFile,
    Profile,
    Rehearsal,
    ScenarioFile,
    read_document,
)
from planner.solver import SolveOptions, solve
from planner.whatif import Case, ChangeRequest, axes_of, expand
from tests.helpers.drawn_plan import drawn, drawn_plan
from tests.helpers.every_key import documents
from tests.helpers.mutants import FEW, MANY, assert_honest, mutants_of_document
from tests.helpers.pencil import ACCURACY_MODEL, fleet, fleet_data, profile


def show(renderable: Any) -> None:
    """Print at 80 columns, to nowhere."""
    Console(file=io.StringIO(), width=80).print(renderable)


def solved(read_profile: Profile, read_fleet: Fleet, goal: Goal) -> None:
    """Plan in a moment, by a baseline: whatever is accepted must come to a plan or a reason."""
    solve(read_profile, read_fleet, goal.replace(method="greedy"), SolveOptions(time_limit_s=1, advice=False))


def use_fleet(path: Path) -> None:
    """Check a plan on the fleet, and plan for it."""
    read = read_document(path, Fleet)
    _naming(path, lambda: check(drawn_plan(), profile(), read))
    _naming(path, lambda: solved(profile(), read, Goal(min_retention=0.1)))


def use_goal(path: Path) -> None:
    """Plan with the goal, for devices whose power is known and a model whose accuracy can be predicted."""
    powered = fleet(devices=[device | {"active_power_w": 2.5} for device in fleet_data()["devices"]])
    predictable = profile(accuracy_model=ACCURACY_MODEL)
    goal = Goal.model_validate(read_document(path, GoalFile).model_dump(exclude={"schema_version"}))
    _naming(path, lambda: solve(predictable, powered, goal, SolveOptions(time_limit_s=0.05, advice=False)))


def use_scenarios(path: Path) -> None:
    """Expand the scenarios on a fleet."""
    request = ChangeRequest(scenarios=read_document(path, ScenarioFile), file=path.name)
    expand(axes_of(request, fleet()), Case.of(profile(), fleet(), Goal(min_retention=0.1)))


def use_plan(path: Path) -> None:
    """Check the plan, and show it if it is valid."""
    read = read_plan(path)
    if not check(read, profile(), fleet()):
        show(plan_text(read, *drawn()[1:]))


def use_profile(path: Path) -> None:
    """Show the profile, and plan with it."""
    read = load_profile(path)
    show(profile_text(read))
    _naming(path, lambda: solved(read, fleet(), Goal(min_retention=0.1)))


def use_card(path: Path) -> None:
    """Read the card as a model's, its paths included, and take its shape."""
    whole_shape(load_card(str(path)))


def _naming(path: Path, action: Callable[[], object]) -> None:
    """Act, and name the file in an error about its content, as commands do."""
    try:
        action()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        if type(error).__name__ not in ("InfeasibleError", "TimeLimitError"):
            raise


USES: dict[str, Callable[[Path], object]] = {
    "devices": use_fleet,
    "goal": use_goal,
    "scenarios": use_scenarios,
    "plan": use_plan,
    "profile": use_profile,
    "card": use_card,
    "rehearsal": lambda path: show(rehearsal_text(read_document(path, Rehearsal))),
}
CASES = documents()


def use(name: str, path: Path) -> None:
    """Use a document as commands do; those that no command shows are read."""
    format_, _ = CASES[name]
    if format_ in USES:
        USES[format_](path)
    else:
        read_document(path, DOCUMENTS[format_])


def fuzz(name: str, count: int, seed: int, tmp_path: Path) -> None:
    """Assert that every mutant of a document is answered honestly."""
    path = tmp_path / f"{name}.json"
    assert_honest(path, mutants_of_document(CASES[name][1], count, seed), lambda: use(name, path))


@pytest.mark.parametrize("name", CASES)
def test_a_mutant_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Some hundred mutants of each document."""
    fuzz(name, FEW, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_thousands_of_mutants_are_read_or_refused(name: str, tmp_path: Path) -> None:
    """Some thousand other mutants of each document."""
    fuzz(name, MANY, 1, tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_the_documents_themselves_are_accepted(name: str, tmp_path: Path) -> None:
    """What is mutated is right before it is."""
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(CASES[name][1]))
    use(name, path)


def keys_within(value: Any) -> Iterator[str]:
    """Yield every key at any depth."""
    if isinstance(value, dict):
        yield from value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_within(below)


# Of a deployment, other tests change every file.
@pytest.mark.parametrize("format_", sorted({*DOCUMENTS} - {"deployment", "device-folder"}))
def test_every_key_of_a_format_is_mutated(format_: str) -> None:
    """A new key has to be given in one of the documents, or no mutant meets it."""
    schema = DOCUMENTS[format_].model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    known = {key for part in parts for key in part.get("properties", {})}
    assert known - {key for name, data in CASES.values() if name == format_ for key in keys_within(data)} == set()
