"""The command line as a user meets it: exit codes, one-sentence errors, tables at 80 columns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from planner.schema import to_json
from tests.helpers import pencil
from tests.helpers.command_line import COUNTED, changed_demo, planner, planner_here, refused
from tests.helpers.common import DEVICES


def test_solve_prints_a_table_that_fits_80_columns(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """The table has status, bound, gap, memory against budget, the bottleneck, the prediction and the floors."""
    result, _ = demo
    headline = r"(OPTIMAL|FEASIBLE) plan: latency \d.*? ms, bound \d.*? ms, gap \d.*?% \(exact, \d.*? s\)\n"
    assert re.match(headline, result.stdout)
    assert "is the bottleneck" in result.stdout
    prediction = r"\nPredicted accuracy 9\d\.\d% \(9\d\.\d% to 9\d\.\d%\) after 10 epochs; unsplit 98\.2%\.\n"
    assert re.search(prediction, result.stdout)
    floors = r"\nBound at retention floors of 0\.\d\d; no plan within the drop takes under \d\.\d ms\.\n"
    assert re.search(floors, result.stdout)
    assert "estimated" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_example_is_worth_splitting(plan_file: Path) -> None:
    """On six devices of three kinds, the whole model fits on one at most and is over 3 times slower there."""
    plan = json.loads(plan_file.read_text())
    fleet = json.loads(DEVICES.read_text())
    assert sum(d.get("count", 1) for d in fleet["devices"]) == 6
    assert len({d["kind"] for d in fleet["devices"]}) >= 3
    assert len(plan["assignments"]) >= 2
    whole = planner_here("solve", "--devices", DEVICES, *COUNTED, "--min-retention", "1", "--leave-idle", "--json")
    unsplit = json.loads(whole.stdout)
    assert [a["device"] for a in unsplit["assignments"]] == ["gateway"]
    assert unsplit["latency_us"] > 3 * plan["latency_us"]


def test_json_goes_to_stdout_and_is_the_plan(tmp_path: Path) -> None:
    """`--json` prints what `--out` writes."""
    path = tmp_path / "plan.json"
    goal = ("--max-accuracy-drop", "0.2", *COUNTED)
    result = planner("solve", "--devices", DEVICES, *goal, "--json", "--out", path)
    assert result.stdout == path.read_text()
    assert json.loads(result.stdout)["status"] == "optimal"


def test_check_accepts_a_plan_and_refuses_a_changed_one(plan_file: Path, tmp_path: Path) -> None:
    """A plan that states one microsecond less is invalid, with exit code 1."""
    assert planner_here("check", plan_file, "--devices", DEVICES).stdout.endswith("valid.\n")
    plan = json.loads(plan_file.read_text())
    plan["assignments"][0]["compute_us"] -= 1
    broken = tmp_path / "plan.json"
    broken.write_text(json.dumps(plan))
    result = planner_here("check", broken, "--devices", DEVICES)
    assert result.returncode == 1
    assert "compute_us must be" in result.stdout


def test_show_shows_what_solve_showed(plan_file: Path) -> None:
    """`show` prints the table of a plan in a file."""
    shown = planner_here("show", plan_file, "--devices", DEVICES).stdout
    assert "bench-1" in shown
    assert json.loads(plan_file.read_text())["status"].upper() in shown


@pytest.mark.parametrize("method", ["random-equal", "greedy"])
def test_baselines_plan_within_a_latency(method: str) -> None:
    """Both baselines find a plan of the demo fleet without floors, within a generous limit."""
    flags = ("--method", method, "--min-retention", "0", "--max-latency-ms", "40", *COUNTED)
    result = planner_here("solve", "--devices", DEVICES, *flags, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["latency_us"] <= 40_000


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--max-accuracy-drop", "-1"], "--max-accuracy-drop"),
        (["--min-retention", "2"], "--min-retention"),
        (["--min-retention", "0.5", "--max-accuracy-drop", "0.05"], "give one of them"),
        (["--accuracy-confidence", "0.3"], "--accuracy-confidence must be >= 0.5, got 0.3."),
    ],
)
def test_goals_that_make_no_sense(flags: list[str], sentence: str) -> None:
    """A goal outside its range is refused with the flag's name."""
    refused(planner_here("solve", "--devices", DEVICES, *flags), sentence)


def test_impossible_fleet_says_why_and_what_helps(tmp_path: Path) -> None:
    """A fleet that is too small gets the reason and the smallest repair, with exit code 1; the repair works."""
    (tmp_path / "profile.json").write_text(to_json(pencil.profile(accuracy_model=pencil.ACCURACY_MODEL)))

    def solve_within(memory_budget: float, *flags: str) -> subprocess.CompletedProcess[str]:
        device = {"name": "a", "macs_per_second": 3e6, "memory_budget": f"{memory_budget}KiB", "runtime_overhead": 1000}
        path = tmp_path / "devices.json"
        path.write_text(json.dumps({"aggregator": "a", "devices": [device]}))
        files = ("--devices", path, "--profile", tmp_path / "profile.json")
        return planner_here("solve", *files, *COUNTED, *flags, "--out", tmp_path / "plan.json")

    result = solve_within(1.2)
    refused(result, "No plan is predicted to lose at most 2.0 points", "Smallest change that works: +", code=1)
    assert not (tmp_path / "plan.json").exists()
    words = result.stderr.split()
    assert solve_within(1.2, "--max-accuracy-drop", words[words.index("--max-accuracy-drop") + 1]).returncode == 0
    assert solve_within(1.2 + float(words[words.index("works:") + 1])).returncode == 0


def test_unreachable_latency_says_what_is_possible() -> None:
    """A latency limit below the bound is refused with the lowest possible latency."""
    result = planner_here(
        "solve", "--devices", DEVICES, *COUNTED, "--max-latency-ms", "1", "--max-accuracy-drop", "0.2"
    )
    refused(result, "No plan within 1 ms: no plan takes less than", "--max-latency-ms", code=1)


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    """An ASCII terminal gets an escape instead of an error."""
    devices = [{"name": "caf\u00e9", "kind": "esp32-s3", "memory_budget": "4MiB"}]
    path = changed_demo(tmp_path, devices=devices, links=[], aggregator="caf\u00e9")
    command = [str(Path(sys.executable).with_name("planner")), "solve", "--devices", str(path), *COUNTED]
    command += ["--min-retention", "0"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "caf\\xe9" in result.stdout


def test_a_fleet_of_thousands_is_planned(tmp_path: Path) -> None:
    """Identical devices are counted, not enumerated: 2,000 of them are planned as 200 are."""
    fleet, plans = json.loads(DEVICES.read_text()), []
    for count in (200, 2000):
        fleet["devices"][2]["count"] = count
        path = changed_demo(tmp_path, devices=fleet["devices"])
        result = planner_here("solve", "--devices", path, *COUNTED, "--min-retention", "0.1", "--json")
        assert result.returncode == 0, result.stderr
        plans.append(json.loads(result.stdout))
    assert plans[0]["status"] == plans[1]["status"] == "optimal"
    assert plans[0]["latency_us"] == plans[1]["latency_us"]
    assert len(plans[1]["idle"]) == len(plans[0]["idle"]) + 1800


def test_execute_refuses_what_does_not_go_together(plan_file: Path, tmp_path: Path) -> None:
    """An unknown recipe, incomplete TLS files and a damaged plan give one sentence each, and nothing is written."""
    damaged = tmp_path / "damaged.json"
    damaged.write_text(plan_file.read_text().replace('"embed_dim": ', '"embed_dim": 1'))
    refused(
        planner_here("execute", damaged, "--out", tmp_path / "bundle"),
        f"{damaged}: the plan does not go with its profile: ",
        "embed_dim must be a width of the profile",
    )
    for flags, message in (
        (["--recipe", "edvit"], "did you mean 'ed-vit'?"),
        (["--tls-ca", DEVICES], "TLS needs all three"),
    ):
        refused(planner_here("execute", plan_file, "--out", tmp_path / "bundle", *flags), message)
    assert not (tmp_path / "bundle").exists()


def test_schema_prints_json_schema() -> None:
    """Each format's schema is JSON and has the format's keys."""
    for name, key in (("devices", "aggregator"), ("profile", "importance"), ("plan", "assignments")):
        assert key in json.loads(planner_here("schema", name).stdout)["properties"]


def test_the_schema_knows_both_ways_to_write_a_size() -> None:
    """The schema accepts "512MiB" as well as a number of bytes."""
    properties = json.loads(planner_here("schema", "devices").stdout)["$defs"]["Device"]["properties"]
    number, text = properties["memory_budget"]["anyOf"]
    assert number["type"] == "integer"
    for size in ("512MiB", "1.5GB", "80 KiB", "100B"):
        assert re.match(text["pattern"], size)
    assert not re.match(text["pattern"], "512Mib")


def test_help_imports_nothing_heavy() -> None:
    """`planner --help` and `planner solve` do not import torch."""
    code = (
        "import sys, planner.cli as c\n"
        "try: c.app(['solve', '--devices', sys.argv[1], '--max-accuracy-drop', '0.2'])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules and 'fvcore' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(DEVICES)], check=True, capture_output=True)
    code = "import sys, planner.cli; assert not {'torch', 'ortools', 'pandas', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
