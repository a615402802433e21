"""Scenarios: swept goals, combinations and files; each listed once, mistakes named in one sentence."""

import json
import re
from typing import Any

import pytest

from planner.errors import InputError
from planner.schema import Goal, ScenarioFile
from planner.whatif import Case, ChangeRequest, axes_of, expand
from planner.whatif.case import ImpossibleError
from planner.whatif.changes import apply_changes
from tests.helpers.yard import FLEET, PROFILE, WIRE, after, names, scenarios

# --- the goal ---


def test_the_goal_is_swept() -> None:
    """Keys are in kebab-case, and one kind of floor replaces the other."""
    got = scenarios(sweep=["max-accuracy-drop=0.01,0.05", "survive=0..2/3", "leave-idle=true", "objective=devices"])
    expected = ["max-accuracy-drop 0.01", "max-accuracy-drop 0.05", "survive 0", "survive 1", "survive 2"]
    assert names(got) == [*expected, "leave-idle true", "objective devices"]
    floor = after(sweep=["min-retention=0.5"]).goal
    assert (floor.min_retention, floor.max_accuracy_drop) == (0.5, None)
    drop = after(goal=Goal(min_retention=0.5), sweep=["max-accuracy-drop=0.1"]).goal
    assert (drop.min_retention, drop.max_accuracy_drop) == (None, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-acuracy-drop=0.1", "got 'max-acuracy-drop'; did you mean 'max-accuracy-drop'?"),
        ("pin=8", "must be KEY=VALUES with a key of max-accuracy-drop,"),
        ("max-accuracy-drop=2", "max_accuracy_drop must be <= 1, got 2.0."),
        ("survive=0.5", "survive must be a valid integer, got 0.5."),
        ("leave-idle=yes", "must be true or false, got 'yes'."),
        ("objective=speed", "objective must be 'latency', 'accuracy', 'energy' or 'devices', got \"speed\"."),
    ],
)
def test_wrong_goals_are_refused(text: str, message: str) -> None:
    """A value outside a goal's range is refused."""
    with pytest.raises(InputError, match=re.escape(f"`sweep={text}`: ") + ".*" + re.escape(message)):
        scenarios(sweep=[text])


def test_a_goal_that_is_not_whole_is_an_impossible_scenario() -> None:
    """Minimal energy without a latency limit is impossible; with one it is not."""
    found = scenarios(sweep=["objective=energy", "max-latency-ms=50"], cross=True)
    assert names(found) == ["max-latency-ms 50", "objective energy", "objective energy, max-latency-ms 50"]
    with pytest.raises(ImpossibleError, match="objective 'energy' must have max_latency_ms beside it, got none"):
        apply_changes(Case.of(PROFILE, FLEET, Goal()), found[1].scenario.changes)
    assert apply_changes(Case.of(PROFILE, FLEET, Goal()), found[2].scenario.changes).goal.objective == "energy"


# --- scenarios ---


def test_combinations() -> None:
    """Each axis may stay as it is; equal results are listed once, and today's fleet is left out."""
    found = scenarios(drop=["pi", "pi-1"], scale=["memory=0.5,1"], cross=True)
    assert names(found) == [
        "memory x0.5",
        "without pi-1",
        "without pi-1, memory x0.5",
        "without pi",
        "without pi, memory x0.5",
    ]
    assert len(scenarios(drop_each=True, cross=True)) == 5
    two = expand(axes_of(ChangeRequest(drop_each=True), FLEET) * 2, Case.of(PROFILE, FLEET, Goal()), cross=True)
    assert len({one.key for one in two}) == len(two)


def test_the_order_of_flags_does_not_matter() -> None:
    """Changes are made in one order, so that the order of flags does not matter."""
    flags = ["pi.memory_budget=9000", "pi-1.memory_budget=8000", "box.a=b.latency_ms=9"]
    one = {p.key for p in scenarios(set=[flags[0], flags[2]], drop=["shed", "pi-2"], cross=True)}
    other = {p.key for p in scenarios(set=[flags[2], flags[0]], drop=["pi-2", "shed"], cross=True)}
    assert one == other


def test_too_many() -> None:
    """10,001 fleets are refused before any solve."""
    with pytest.raises(InputError, match=r"There must be at most 10,000 scenarios, got 1,002,000: ask for fewer"):
        scenarios(scale=["memory=0.5..2/1000", "latency=0.5..2/1000"], cross=True)


def scenario_file(*entries: dict[str, Any]) -> ScenarioFile:
    """Return a file with these scenarios."""
    return ScenarioFile.model_validate_json(json.dumps({"schema_version": 1, "scenarios": entries}), strict=True)


def test_a_file_of_scenarios() -> None:
    """Changes of all kinds are made in the order of the keys, whatever their order in the file."""
    entry = {
        "goal": {"max_accuracy_drop": 0.05},
        "scale": {"memory": 0.5},
        "set": {"pi.memory_budget": "4KiB", "new.memory_budget": 600, "pi-3.memory_budget": 100},
        "links": [{"between": ["new", "shed"], **WIRE}],
        "devices": [{"name": "new", "macs_per_second": 1e6, "memory_budget": 500}],
        "add": {"pi": 1},
        "drop": ["pi-1"],
        "name": "all at once",
    }
    (one,) = scenarios(scenarios=scenario_file(entry))
    case = apply_changes(Case.of(PROFILE, FLEET, Goal()), one.scenario.changes)
    budgets = {d.name: d.memory_budget for d in case.fleet.devices}
    assert budgets == {"gateway": 1000, "pi-2": 2048, "box.a=b": 2000, "shed": 2500, "pi-3": 50, "new": 300}
    assert case.goal.max_accuracy_drop == 0.05
    assert one.scenario.name == "all at once"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "x"}, {"name": "x"}], "scenarios: names must differ, 'x' is given twice"),
        ([{"name": "today"}], "'today' is the name of the fleet as it is"),
        (
            [{"name": "x", "set": {"pi": 3}}],
            "scenarios[0] 'x': set: must be NAME.KEY or aggregator, got 'pi'.",
        ),
        ([{"name": "x", "drop": ["pie"]}], "moves.json: scenarios[0] 'x': 'pie' is not a device of the fleet; did you"),
        ([{"name": "without pi", "scale": {"latency": 2}}], "names must differ, 'without pi' is used twice."),
    ],
)
def test_wrong_files_are_refused(entries: list[dict[str, Any]], message: str) -> None:
    """Repeated names, also by flags, and mistakes are named with their place."""
    # A file's own check speaks through pydantic; read from a path, it is the same sentence.
    with pytest.raises((InputError, ValueError), match=re.escape(message)):
        scenarios(drop=["pi"], scenarios=scenario_file(*entries), file="moves.json")


def test_no_change_is_today() -> None:
    """A scenario without a change has today's fleet and goal."""
    (one,) = scenarios(scenarios=scenario_file({"name": "as it is"}))
    assert apply_changes(Case.of(PROFILE, FLEET, Goal()), one.scenario.changes).fleet == FLEET
    assert scenarios(scale=["memory=1"])[0].key == one.key
