"""`planner solve` with goals: files, flags, an earlier plan, output and refusals."""

import json
from pathlib import Path

import pytest

from tests.helpers.command_line import COUNTED, planner_here, refused
from tests.helpers.common import DEVICES, Json


def solved(*flags: object) -> Json:
    """Return the plan of the demo fleet with these flags."""
    result = planner_here("solve", "--devices", DEVICES, "--json", *COUNTED, *map(str, flags))
    assert result.returncode == 0, result.stderr
    plan: Json = json.loads(result.stdout)
    return plan


def served(plan: Json) -> dict[str, set[str]]:
    """Return the classes that each device serves."""
    return {a["device"]: set(a["classes"]) for a in plan["assignments"]}


def goal_file(tmp_path: Path, **goal: object) -> Path:
    """Write a goal file."""
    path = tmp_path / "goal.json"
    path.write_text(json.dumps({"schema_version": 1} | goal))
    return path


def test_flags_that_place_classes() -> None:
    """Pins, forbidden devices, classes together and apart, and a device left out, all at once."""
    plan = solved(
        *("--pin", "8=gateway", "--pin", "3=bench-2", "--forbid", "8=bench-1", "--forbid", "1=gateway"),
        *("--together", "0,1", "--together", "4,5", "--apart", "2,7", "--leave-out", "pump", "--survive", "0"),
        *("--min-retention", "0.4"),
    )
    on = served(plan)
    assert "8" in on["gateway"]
    assert "3" in on["bench-2"]
    assert "8" not in on.get("bench-1", set())
    assert "1" not in on["gateway"]
    assert all(not {"0", "1"} & classes or {"0", "1"} <= classes for classes in on.values())
    assert all(not {"2", "7"} <= classes for classes in on.values())
    assert "pump" in plan["idle"]
    goal = plan["goal"]
    assert goal["pin"] == {"8": ["gateway"], "3": ["bench-2"]}
    assert goal["together"] == [["0", "1"], ["4", "5"]]


def test_flags_that_limit() -> None:
    """Limits of latency, energy, retention, drop and idle devices hold, and are in the plan's goal."""
    free = solved("--max-accuracy-drop", "0.2")
    plan = solved("--max-latency-ms", "60", "--objective", "energy", "--leave-idle", "--max-accuracy-drop", "0.2")
    assert plan["latency_us"] <= 60_000
    assert plan["objective_bound"] <= plan["objective_value"] <= sum(a["energy_mj"] for a in free["assignments"])
    assert (plan["goal"]["max_accuracy_drop"], plan["goal"]["leave_idle"]) == (0.2, True)
    limit_mj = round(plan["objective_value"] * 1.2, 3)
    capped = solved("--max-energy-mj", limit_mj, "--max-accuracy-drop", "0.2")
    assert sum(a["energy_mj"] for a in capped["assignments"]) <= limit_mj
    assert capped["latency_us"] <= plan["latency_us"]


def test_floors_by_retention() -> None:
    """A retention floor replaces the accuracy drop, and 0 is a floor, too."""
    half = solved("--min-retention", "0.5", "--leave-idle")
    assert half["goal"]["max_accuracy_drop"] is None
    assert all(share >= 0.5 - 1e-6 for a in half["assignments"] for share in a["retention"].values())
    none = solved("--min-retention", "0", "--leave-idle")
    assert none["goal"]["min_retention"] == 0
    assert none["latency_us"] < half["latency_us"]


@pytest.mark.parametrize(
    ("objective", "max_latency_ms", "unit"),
    [("accuracy", "5", "predicted accuracy 9"), ("energy", "200", " mJ,"), ("devices", "200", "devices 1,")],
)
def test_tables_of_other_objectives_fit_80_columns(objective: str, max_latency_ms: str, unit: str) -> None:
    """The headline has value, bound and gap of the objective, then the latency."""
    goal = ("--objective", objective, "--max-latency-ms", max_latency_ms, "--max-accuracy-drop", "0.2")
    result = planner_here("solve", "--devices", DEVICES, *goal, *COUNTED)
    assert result.returncode == 0, result.stderr
    headline = " ".join(result.stdout.split("\n\n")[0].split())
    assert unit in headline
    assert "bound" in headline
    assert "gap" in headline
    assert ", latency " in headline
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_goal_file_and_flags_that_win_over_it(tmp_path: Path) -> None:
    """Flags override the goal file, also with a value of 0."""
    path = goal_file(tmp_path, max_accuracy_drop=0.2, survive=1, leave_out=["pump"], leave_idle=True)
    plan = solved("--goal", path)
    assert (plan["goal"]["survive"], plan["goal"]["max_accuracy_drop"]) == (1, 0.2)
    assert all(sum(str(c) in classes for classes in served(plan).values()) >= 2 for c in range(10))
    assert "pump" in plan["idle"]
    flagged = solved("--goal", path, "--survive", "0", "--min-retention", "0.4", "--leave-out", "bench-1")
    goal = flagged["goal"]
    assert (goal["survive"], goal["min_retention"], goal["max_accuracy_drop"]) == (0, 0.4, None)
    assert goal["leave_out"] == ["bench-1"]
    assert goal["leave_idle"] is True
    by_drop = solved("--goal", goal_file(tmp_path, min_retention=0.4), "--max-accuracy-drop", "0.2")
    assert (by_drop["goal"]["min_retention"], by_drop["goal"]["max_accuracy_drop"]) == (None, 0.2)


@pytest.mark.parametrize(
    ("goal", "parts"),
    [
        ({"surviv": 1}, ["goal.json", "'surviv'", "'survive'?"]),
        ({"objective": "speed"}, ["goal.json", "objective must be", '"speed"']),
        ({"objective": "energy"}, ["goal.json", "max_latency_ms"]),
        ({"together": [["1"]]}, ["goal.json", "together[0]"]),
        ({"pin": {"1": ["nobody"]}}, ["--pin: 'nobody' is not a device of the fleet"]),
    ],
    ids=str,
)
def test_bad_goal_files(tmp_path: Path, goal: Json, parts: list[str]) -> None:
    """A wrong goal file is named with its mistake."""
    refused(planner_here("solve", "--devices", DEVICES, "--goal", goal_file(tmp_path, **goal)), *parts)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--pin", "8"], ["--pin: must be CLASS=DEVICE, got '8'."]),
        (["--pin", "=gateway"], ["--pin: must be CLASS=DEVICE, got '=gateway'."]),
        (["--forbid", "8="], ["--forbid: must be CLASS=DEVICE, got '8='."]),
        (["--pin", "8=gatewy"], ["--pin: 'gatewy' is not a device of the fleet", "'gateway'?"]),
        (["--pin", "eight=gateway"], ["--pin: 'eight' is not a class of the profile"]),
        (["--together", "3"], ["--together: must be classes with commas between, such as 3,5, got '3'."]),
        (["--apart", "3,"], ["--apart: must be classes with commas between", "'3,'"]),
        (["--apart", "3,x"], ["--apart: 'x' is not a class of the profile"]),
        (["--leave-out", "bank"], ["--leave-out: 'bank' is not a device of the fleet"]),
        (["--survive", "-1"], ["--survive must be >= 0, got -1."]),
        (["--max-latency-ms", "0"], ["--max-latency-ms must be > 0, got 0.0."]),
        (["--max-energy-mj", "-2"], ["--max-energy-mj must be > 0, got -2.0."]),
        (["--objective", "energy"], ["objective 'energy' must have max_latency_ms beside it, got none."]),
        (["--method", "greedy", "--survive", "1"], ["method 'greedy' knows nothing of 'survive'"]),
        (["--method", "greedy", "--objective", "devices"], ["method 'greedy' knows nothing of 'objective'"]),
        (["--start", "nowhere.json"], ["nowhere.json: no such file."]),
        (["--goal", "nowhere.json"], ["nowhere.json: no such file."]),
    ],
    ids=str,
)
def test_bad_flags(flags: list[str], parts: list[str]) -> None:
    """One sentence names the flag or the name in it, and the given value."""
    refused(planner_here("solve", "--devices", DEVICES, *flags), *parts)


def test_demands_that_contradict_are_named() -> None:
    """Contradicting demands are named as flags, with a repair and exit code 1."""
    flags = ["--pin", "8=gateway", "--forbid", "8=gateway", "--max-accuracy-drop", "0.2"]
    result = planner_here("solve", "--devices", DEVICES, *COUNTED, *flags)
    named = "No plan: --pin 8=gateway and --forbid 8=gateway contradict each other on this fleet."
    refused(result, named, "no --pin 8=gateway, or no --forbid 8=gateway.", code=1)


def test_out_of_time_is_exit_code_1(tmp_path: Path) -> None:
    """Without any time, one sentence says what was found and claims nothing else."""
    # There is such a plan, but it has to be looked for.
    goal = ("--max-latency-ms", "4", "--max-energy-mj", "1.06", "--min-retention", "0.8")
    result = planner_here("solve", "--devices", DEVICES, *goal, "--time-limit", "0", "--out", tmp_path / "plan.json")
    refused(result, "No plan within 4 ms was found; the best takes", "Raise --time-limit or --max-latency-ms", code=1)
    assert not (tmp_path / "plan.json").exists()


def test_start_says_what_moves(tmp_path: Path) -> None:
    """From the plan itself nothing moves; with a device left out, a table of 80 columns shows the moves."""
    path = tmp_path / "plan.json"
    earlier = solved("--min-retention", "0.4", "--out", path)
    command = ("solve", "--devices", DEVICES, "--min-retention", "0.4", *COUNTED, "--start", path)
    same = planner_here(*command)
    assert "Nothing moves: every device keeps its sub-model." in same.stdout
    lost = earlier["assignments"][-1]["device"]
    result = planner_here(*command, "--leave-out", lost)
    assert result.returncode == 0, result.stderr
    assert "What moves: " in result.stdout
    moved = result.stdout.partition("What moves: ")[2]
    assert lost in moved
    assert "to send" in moved
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "What moves" not in planner_here(*command, "--min-retention", "0", "--json").stdout


def test_deterministic_plans_are_the_same() -> None:
    """Two deterministic runs give the same JSON, except for the seconds."""
    plans = [solved("--max-accuracy-drop", "0.05", "--seed", "3") for _ in range(2)]
    for plan in plans:
        del plan["solver"]["seconds"]
    assert plans[0] == plans[1]


def test_the_schema_of_a_goal(tmp_path: Path) -> None:
    """`planner schema goal` is the JSON Schema of a goal file, with every flag's key."""
    properties = json.loads(planner_here("schema", "goal").stdout)["properties"]
    keys = {"objective", "max_accuracy_drop", "min_retention", "max_latency_ms", "max_energy_mj", "survive"}
    assert keys | {"pin", "forbid", "together", "apart", "leave_out", "leave_idle", "method"} <= properties.keys()


def test_show_shows_a_plan_with_demands(tmp_path: Path) -> None:
    """A plan of another objective is checked and shown from its file."""
    path = tmp_path / "plan.json"
    flags: list[str | Path] = ["--objective", "devices", "--survive", "1", "--max-accuracy-drop", "0.2", "--out", path]
    assert planner_here("solve", "--devices", DEVICES, *COUNTED, *flags).returncode == 0
    assert planner_here("check", path, "--devices", DEVICES).stdout.endswith("valid.\n")
    assert "plan: devices 2, bound 2" in " ".join(planner_here("show", path, "--devices", DEVICES).stdout.split())
