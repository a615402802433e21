"""`planner what-if`, `pareto`, `next` and `diff` as a user meets them."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from planner.report.what_if_text import next_text, what_if_text
from planner.schema import Fleet, ScenarioFile, to_json
from planner.solver import solve
from planner.whatif import ScenarioRow, frame_of
from tests.helpers.command_line import planner_here, refused
from tests.helpers.common import PATIENCE_S, Json
from tests.helpers.goals import floored
from tests.helpers.what_if_instances import by_hand, files, instance


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of a small profile and fleet, as flags."""
    return files(tmp_path_factory.mktemp("files"), *instance(2))


def shown(renderable: Any) -> str:
    """Return what a terminal of 80 columns shows."""
    text = io.StringIO()
    Console(file=text, width=80).print(renderable)
    return text.getvalue()


def test_a_table_of_scenarios(flags: list[str], tmp_path: Path) -> None:
    """Latency, change, bottleneck and moves at 80 columns, reasons below; also for named scenarios of a file."""
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps({"scenarios": [{"name": "all roomy", "scale": {"memory": 9}}]}))
    result = planner_here("what-if", *flags, "--drop-each", "--scenarios", path, "--jobs", "1")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("random-2: what if (times in ms; moved: classes, bytes to send)")
    assert lines[2].split() == ["scenario", "latency", "change", "gap", "bottleneck", "used", "moved"]
    assert [line.split("  ")[0].strip() for line in lines[4:6]] == ["today", ""]
    assert "all roomy" in result.stdout
    assert "without d0: 'd0' has the image and joins the features." in result.stdout
    assert max(map(len, lines)) <= 80
    assert "scenarios" in planner_here("schema", "scenarios").stdout


def test_json_and_csv_have_all_columns(flags: list[str], tmp_path: Path) -> None:
    """JSON and CSV have the same rows, with integers as such and empty missing values, on stdout and in files."""
    common = ("what-if", *flags, "--drop", "d0", "--scale", "memory=2", "--jobs", "1")
    out = tmp_path / "new" / "rows.csv"
    rows = json.loads(planner_here(*common, "--json").stdout)
    result = planner_here(*common, "--csv", "--out", out)
    table = list(csv.DictReader(io.StringIO(result.stdout)))
    assert (
        [row["scenario"] for row in rows] == [row["scenario"] for row in table] == ["today", "without d0", "memory x2"]
    )
    assert list(rows[0]) == list(table[0])
    assert (rows[1]["latency_us"], table[1]["latency_us"]) == (None, "")
    assert [str(row["latency_us"]) for row in rows[::2]] == [row["latency_us"] for row in table[::2]]
    written = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [{**row, "seconds": ""} for row in written] == [{**row, "seconds": ""} for row in table]
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "Nothing to ask: give --drop, --drop-each, --add, --set, --scale, --sweep or --scenarios."),
        (["--drop", "d9"], "--drop d9: 'd9' is not a device of the fleet; did you mean 'd"),
        (["--drop", "d1", "--json", "--csv"], "--json and --csv both say what is printed: give one of them."),
        (["--drop", "d1", "--out", "rows.txt"], "--out rows.txt: must be a .csv or .json file, got '.txt'."),
        (["--drop", "d1", "--start", "p.json"], "--goal and --start both say what plans must hold"),
        (["--drop", "d1", "--jobs", "2", "--scheduler", "tcp://x:1"], "--scheduler leaves the work to its cluster"),
    ],
    ids=str,
)
def test_bad_flags(flags: list[str], given: list[str], message: str) -> None:
    """A wrong flag is refused in one sentence before anything is solved."""
    refused(planner_here("what-if", *flags, *given), message)


def test_a_bad_scenario_file(flags: list[str], tmp_path: Path) -> None:
    """The message has the file, the place in it and the nearest key."""
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps({"scenarios": [{"name": "x", "drpo": ["d1"]}]}))
    refused(
        planner_here("what-if", *flags, "--scenarios", path), f"{path}: scenarios[0] 'x': unknown key 'drpo'", "'drop'?"
    )
    path.write_text(json.dumps({"scenarios": [{"name": "x", "drop": ["dd1"]}]}))
    refused(planner_here("what-if", *flags, "--scenarios", path), f"{path}: scenarios[0] 'x': 'dd1' is not a device")


def test_stopped_it_shows_the_rows_so_far_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C exits with 130 and reports missing rows; the same command solves the rest."""
    flags, out = files(tmp_path, *instance(2)), tmp_path / "rows.json"
    part = out.with_name("rows.json.part")
    command = [str(Path(sys.executable).with_name("planner")), "what-if", *flags, "--scale", "latency=0.1..3/60"]
    command += ["--jobs", "1", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not (part.exists() and len(part.read_text().splitlines()) > 4):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    kept = len(part.read_text().splitlines()) - 1
    assert 4 <= kept < 60
    # The signal may come between the writing of a row and its counting.
    missing = re.search(r"Stopped: (\d+) of 60 scenarios are missing; the same command goes on from there\.", stderr)
    assert missing is not None
    assert int(missing[1]) in (60 - kept, 61 - kept)
    assert "latency x0.1 " in stdout
    assert not out.exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(json.loads(out.read_text())) == 61
    assert not part.exists()


HOSTILE = ["<script>alert(1)</script>", "\x1b[31mred\n\ttab", "[bold]markup[/bold]", "🦔" * 40, "x" * 200, "=1+1"]


def test_hostile_names_are_shown_and_do_nothing() -> None:
    """Tags, escape sequences, markup, emoji and 200 characters stay text within 80 columns."""
    rows = [ScenarioRow("today", "optimal", 9000, 0, 9000, 0.0, HOSTILE[1], 2, 1000, classes_moved=0, bytes_to_send=0)]
    rows += [
        ScenarioRow(f"without {n}", "optimal", 9000, 1, 9000, 0.0, n, 2, 9, classes_moved=1, bytes_to_send=9)
        for n in HOSTILE
    ]
    rows += [ScenarioRow(f"+ {n}", "impossible", reason=f"No plan: {n}.") for n in HOSTILE]
    text = shown(what_if_text(frame_of(rows), HOSTILE[1]))
    # An emoji takes two columns.
    assert max(len(line) + line.count("🦔") for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "<script>" in text
    assert "[bold]" in text
    frame = frame_of(rows)
    frame["gain_us"] = -frame["change_us"]
    assert "\x1b" not in shown(next_text(frame, HOSTILE[1]))
    # The 200 characters have lost their middle.
    assert "x…x" in text
    assert "\\x1b[31mred\\n\\ttab" in text


def test_another_objective_has_its_column() -> None:
    """Values of the energy stand beside the latencies, within 80 columns."""
    numbers: Json = {
        "devices_used": 2,
        "objective": "energy",
        "objective_value": 3.4472,
        "objective_bound": 3.4472,
    }
    rows = [
        ScenarioRow("today", "optimal", 16_170, 0, 9000, 0.0, "vent-1", classes_moved=0, bytes_to_send=0, **numbers)
    ]
    rows += [
        ScenarioRow("pump.memory_budget 512KiB", "optimal", 16_172, 2, 9, 0.0, "b" * 20, classes_moved=10, **numbers)
    ]
    rows = [replace(row, bytes_to_send=123_456) for row in rows]
    lines = shown(what_if_text(frame_of(rows), "greenhouse")).splitlines()
    assert lines[2].split() == ["scenario", "latency", "change", "objective", "gap", "bottleneck", "moved"]
    assert lines[4].split() == ["today", "16.2", "same", "3.447", "mJ", "0.0%", "vent-1", "0,", "121", "KiB"]
    assert max(map(len, lines)) <= 80


def test_reasons_that_are_the_same_are_said_once() -> None:
    """Of five scenarios with one reason, two are named and three counted."""
    rows = [
        ScenarioRow("today", "unknown", reason="No time."),
        *(ScenarioRow(f"s{i}", "impossible", reason="Too big.") for i in range(5)),
    ]
    assert "s0; s1 and 3 more: Too big." in shown(what_if_text(frame_of(rows), "f"))


def test_pareto_and_next(flags: list[str]) -> None:
    """A front against memory and the best purchases, as tables and as JSON with the frames' columns."""
    result = planner_here("pareto", *flags, "--against", "memory", "--points", "3", "--jobs", "1")
    assert result.stdout.splitlines()[0].startswith("random-2: latency against memory")
    assert result.stdout.splitlines()[2].split() == ["all", "budgets", "granted", "latency", "bound", "gap"]
    points = json.loads(planner_here("pareto", *flags, "--json", "--jobs", "1").stdout)
    assert list(points[0]) == ["against", "limit", "value", "latency_us", "bound_us", "gap", "status"]
    result = planner_here("next", *flags, "--kinds", "raspberry-pi-5, d1", "--jobs", "1")
    assert "random-2: what to buy or upgrade next" in result.stdout
    assert "Nothing is gained by: " in result.stdout
    assert result.stdout.count("raspberry-pi-5") == 1
    refused(
        planner_here("next", *flags, "--kinds", "raspberry-pi-6"),
        "--kinds raspberry-pi-6: must be a device of the fleet",
    )


def test_diff(tmp_path: Path) -> None:
    """The moves between two plans in files; plans of another profile are refused."""
    profile, fleet = instance(2)
    flags = files(tmp_path, profile, fleet)[-2:]
    wide: Fleet = by_hand(fleet, lambda data: [d.update(memory_budget=10**6) for d in data["devices"]])
    plans = {"a": solve(profile, fleet, floored()), "b": solve(profile, wide, floored(min_retention=0.3))}
    for name, plan in plans.items():
        (tmp_path / f"{name}.json").write_text(to_json(plan))
    a, b = (tmp_path / f"{name}.json" for name in plans)
    result = planner_here("diff", a, b, *flags)
    assert result.returncode == 0, result.stderr
    assert f"{a}: OPTIMAL plan: latency" in result.stdout
    assert "What moves: " in result.stdout
    data = json.loads(planner_here("diff", a, b, *flags, "--json").stdout)
    assert data["latency_us"] == [plans["a"].latency_us, plans["b"].latency_us]
    assert data["bytes_to_send"] == sum(move["bytes_to_send"] for move in data["moves"]) > 0
    assert "Nothing moves" in planner_here("diff", a, a, *flags).stdout
    refused(planner_here("diff", a, b), f"{a}: plans must be of profile digits-vit", "name theirs by --profile.")


def test_the_file_of_scenarios_reads_back() -> None:
    """A scenario file survives a round trip through JSON."""
    entry = {"name": "x", "drop": ["a"], "add": {"b": 2}, "set": {"c.kind": "d"}, "goal": {"survive": 1}}
    file = ScenarioFile.model_validate({"scenarios": [entry]})
    assert ScenarioFile.model_validate_json(to_json(file)) == file
