"""The command line as a user meets it: exit codes, one-sentence errors, tables at 80 columns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEVICES = ROOT / "examples" / "devices.json"


def planner(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a user would, at 80 columns."""
    command = [str(Path(sys.executable).with_name("planner")), *map(str, args)]
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


def refused(result: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    """Assert one clean sentence on stderr, nothing on stdout, and the exit code."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's plan."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    assert planner("solve", "--devices", DEVICES, "--out", path).returncode == 0
    return path


def changed(tmp_path: Path, **changes: object) -> Path:
    """Write the demo fleet with some keys changed."""
    path = tmp_path / "devices.json"
    path.write_text(json.dumps(json.loads(DEVICES.read_text()) | changes))
    return path


def test_solve_prints_a_table_that_fits_80_columns() -> None:
    """The plan is shown with status, bound, gap, memory against budget and the bottleneck."""
    result = planner("solve", "--devices", DEVICES)
    assert result.returncode == 0, result.stderr
    assert "OPTIMAL plan" in result.stdout
    assert "gap 0.0 %" in result.stdout
    assert "is the bottleneck" in result.stdout
    assert "estimated" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_example_is_one_where_splitting_is_right(plan_file: Path) -> None:
    """Six devices of three kinds or more; the whole model fits on one at most and is over 3 times slower there."""
    plan = json.loads(plan_file.read_text())
    fleet = json.loads(DEVICES.read_text())
    assert sum(d.get("count", 1) for d in fleet["devices"]) == 6
    assert len({d["kind"] for d in fleet["devices"]}) >= 3
    assert plan["status"] == "optimal"
    assert len(plan["assignments"]) >= 3
    whole = planner("solve", "--devices", DEVICES, "--min-retention", "1", "--leave-idle", "--json")
    unsplit = json.loads(whole.stdout)
    assert [a["device"] for a in unsplit["assignments"]] == ["gateway"]
    assert unsplit["latency_us"] > 3 * plan["latency_us"]


def test_json_goes_to_stdout_and_is_the_plan(plan_file: Path) -> None:
    """`--json` prints what `--out` writes, the solver's seconds aside."""
    printed = json.loads(planner("solve", "--devices", DEVICES, "--json").stdout)
    written = json.loads(plan_file.read_text())
    printed["solver"].pop("seconds")
    written["solver"].pop("seconds")
    assert printed == written


def test_check_accepts_a_plan_and_refuses_a_changed_one(plan_file: Path, tmp_path: Path) -> None:
    """A plan that claims one microsecond less is caught, with exit code 1."""
    assert planner("check", plan_file, "--devices", DEVICES).stdout.endswith("valid.\n")
    plan = json.loads(plan_file.read_text())
    plan["assignments"][0]["compute_us"] -= 1
    broken = tmp_path / "plan.json"
    broken.write_text(json.dumps(plan))
    result = planner("check", broken, "--devices", DEVICES)
    assert result.returncode == 1
    assert "compute_us must be" in result.stdout


def test_show_shows_what_solve_showed(plan_file: Path) -> None:
    """The same table comes from the file."""
    shown = planner("show", plan_file, "--devices", DEVICES).stdout
    assert "bench-1" in shown
    assert "OPTIMAL" in shown


@pytest.mark.parametrize("method", ["random-equal", "greedy"])
def test_yardsticks_plan_within_a_latency(method: str) -> None:
    """Both yardsticks find a plan of the demo fleet without floors, within a generous limit."""
    result = planner(
        "solve", "--devices", DEVICES, "--method", method, "--min-retention", "0", "--max-latency-ms", "40", "--json"
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["latency_us"] <= 40_000


def test_missing_file(tmp_path: Path) -> None:
    """A missing devices.json is named."""
    refused(planner("solve", "--devices", tmp_path / "nowhere.json"), "nowhere.json: no such file.")


def test_not_json(tmp_path: Path) -> None:
    """A file that is not JSON is named with the place."""
    path = tmp_path / "devices.json"
    path.write_text('{"name": "x",,}')
    refused(planner("solve", "--devices", path), "devices.json: line 1, column 14: not JSON")


def test_misspelled_key_names_the_nearest(tmp_path: Path) -> None:
    """A misspelled key is met with the one that was meant."""
    devices = [{"name": "pi", "kind": "esp32-s3", "memory_bugdet": "1MiB"}]
    path = changed(tmp_path, devices=devices, links=[], aggregator="pi")
    refused(planner("solve", "--devices", path), "devices[0] 'pi'", "unknown key 'memory_bugdet'", "'memory_budget'?")


def test_negative_budget(tmp_path: Path) -> None:
    """The sentence of the design, word for word."""
    devices = [
        {"name": "a", "kind": "esp32-s3", "memory_budget": 1000},
        {"name": "pi", "kind": "esp32-s3", "memory_budget": -1},
    ]
    path = changed(tmp_path, devices=devices, links=[], aggregator="a")
    refused(planner("solve", "--devices", path), "devices.json: devices[1] 'pi': memory_budget must be > 0, got -1.")


def test_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    """An unknown kind is met with the one that was meant, and nothing is written."""
    devices = [{"name": "pi", "kind": "esp32-s33", "memory_budget": "1MiB"}]
    path, out = changed(tmp_path, devices=devices, links=[], aggregator="pi"), tmp_path / "plan.json"
    refused(planner("solve", "--devices", path, "--out", out), "'pi'", "'esp32-s33'", "'esp32-s3'?")
    assert not out.exists()


def test_unreachable_device(tmp_path: Path) -> None:
    """A device without a path is named."""
    refused(planner("solve", "--devices", changed(tmp_path, links=[])), "'bench-1'", "must be reachable")


def test_empty_fleet(tmp_path: Path) -> None:
    """A fleet needs a device."""
    refused(
        planner("solve", "--devices", changed(tmp_path, devices=[], links=[])),
        "devices must have at least 1 entry, got 0",
    )


def test_class_twice_in_the_profile(tmp_path: Path) -> None:
    """A profile that names a class twice is refused."""
    profile = json.loads((ROOT / "profiles" / "digits-vit.json").read_text())
    profile["classes"][1] = "0"
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    refused(planner("solve", "--devices", DEVICES, "--profile", path), "'0' is given twice")


def test_unknown_profile_names_the_nearest() -> None:
    """A misspelled profile is met with the one that was meant."""
    refused(planner("solve", "--devices", DEVICES, "--profile", "digit-vit"), "'digits-vit'?")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--max-accuracy-drop", "-1"], "--max-accuracy-drop"),
        (["--min-retention", "2"], "--min-retention"),
        (["--min-retention", "0.5", "--max-accuracy-drop", "0.05"], "give one of them"),
        (["--max-accuracy-drop", "0.001"], "was calibrated for"),
    ],
)
def test_goals_that_make_no_sense(flags: list[str], sentence: str) -> None:
    """A goal outside its range is refused with the flag's name."""
    refused(planner("solve", "--devices", DEVICES, *flags), sentence)


def test_impossible_fleet_says_why_and_what_helps(tmp_path: Path) -> None:
    """A fleet that is too small gets the reason and the smallest change, with exit code 1; the change works."""
    devices = [{"name": "a", "kind": "esp32-s3", "memory_budget": "120KiB"}]
    path = changed(tmp_path, devices=devices, links=[], aggregator="a")
    result = planner("solve", "--devices", path, "--out", tmp_path / "plan.json")
    refused(result, "No plan: class", "the largest budget is 120 KiB (a)", "Smallest change that works: +", code=1)
    assert not (tmp_path / "plan.json").exists()
    words = result.stderr.split()
    added = float(words[words.index("works:") + 1])
    devices[0]["memory_budget"] = f"{120 + added}KiB"
    assert planner("solve", "--devices", changed(tmp_path, devices=devices, links=[], aggregator="a")).returncode == 0


def test_unreachable_latency_says_what_is_possible() -> None:
    """A latency limit below the bound is refused with the least that is possible."""
    result = planner("solve", "--devices", DEVICES, "--max-latency-ms", "1")
    refused(result, "No plan within 1 ms: no plan takes less than", "--max-latency-ms", code=1)


def test_plan_for_another_profile(plan_file: Path, tmp_path: Path) -> None:
    """A plan made from another profile is neither executed nor accepted."""
    profile = json.loads((ROOT / "profiles" / "digits-vit.json").read_text()) | {"input_bytes": 64}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    out = tmp_path / "bundle"
    refused(planner("execute", plan_file, "--out", out, "--profile", path), "made from another profile")
    assert not out.exists()
    result = planner("check", plan_file, "--devices", DEVICES, "--profile", path)
    assert result.returncode == 1
    assert "for another profile" in result.stdout


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("kept_heads", [[9], [], [], []], r"kept_heads[0] must rise within 0..3"),
        ("kept_heads", [[0]], "kept_heads must have 4 blocks, got 1"),
        ("kept_channel_groups", [[99], [], [], []], "kept_channel_groups[0] must rise within 0..31"),
        ("classes", ["zebra"], "class 'zebra' is not in the profile"),
        ("embed_dim", 20, "embed_dim must be a width of the profile, got 20"),
    ],
)
def test_a_plan_that_cannot_be_cut_is_not_begun(
    plan_file: Path, tmp_path: Path, key: str, value: object, said: str
) -> None:
    """A plan edited into nonsense is refused before anything is written."""
    plan = json.loads(plan_file.read_text())
    plan["assignments"][0][key] = value
    broken, out = tmp_path / "plan.json", tmp_path / "bundle"
    broken.write_text(json.dumps(plan))
    refused(planner("execute", broken, "--out", out), "the plan does not go with its profile", said)
    assert not out.exists()


def test_results_that_could_not_be_written_are_noticed_first(plan_file: Path, tmp_path: Path) -> None:
    """A folder where a file must be, and a file where a folder must be."""
    refused(planner("solve", "--devices", DEVICES, "--out", tmp_path), "must be a file, got a folder")
    refused(planner("profile", "digits-vit", "--out", "."), "must be a file, got a folder")
    (tmp_path / "afile").touch()
    refused(planner("execute", plan_file, "--out", tmp_path / "afile"), "must be a folder, got a file")


def test_a_misspelled_kind_is_refused_even_with_a_rate(tmp_path: Path) -> None:
    """Or the card's runtime overhead and power would be missing without a word."""
    devices = [{"name": "a", "kind": "esp32s3", "macs_per_second": 8e7, "memory_budget": "1MiB"}]
    refused(planner("solve", "--devices", changed(tmp_path, devices=devices, links=[], aggregator="a")), "'esp32-s3'?")


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    """An ASCII terminal gets an escape, not a traceback."""
    devices = [{"name": "caf\u00e9", "kind": "esp32-s3", "memory_budget": "4MiB"}]
    path = changed(tmp_path, devices=devices, links=[], aggregator="caf\u00e9")
    command = [str(Path(sys.executable).with_name("planner")), "solve", "--devices", str(path)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "caf\\xe9" in result.stdout


def test_a_fleet_of_thousands_is_planned(tmp_path: Path) -> None:
    """Identical devices are counted, not enumerated: 5,000 of them cost next to nothing."""
    fleet = json.loads(DEVICES.read_text())
    fleet["devices"][2]["count"] = 5000
    path = tmp_path / "devices.json"
    path.write_text(json.dumps(fleet))
    assert planner("solve", "--devices", path, "--json").returncode == 0


def test_execute_refuses_what_does_not_go_together(plan_file: Path, tmp_path: Path) -> None:
    """A recipe that is none, and TLS by halves: one sentence each, and nothing is written."""
    for flags, said in (
        (["--recipe", "edvit"], "did you mean 'ed-vit'?"),
        (["--tls-ca", DEVICES], "TLS needs all three"),
    ):
        refused(planner("execute", plan_file, "--out", tmp_path / "bundle", *flags), said)
    assert not (tmp_path / "bundle").exists()


def test_evaluate_refuses_what_is_not_a_bundle(tmp_path: Path) -> None:
    """An empty folder is no bundle."""
    refused(planner("evaluate", tmp_path), "must be a bundle")


def test_schema_prints_json_schema() -> None:
    """Each format's schema is JSON and has the format's keys."""
    for name, key in (("devices", "aggregator"), ("profile", "importance"), ("plan", "assignments")):
        assert key in json.loads(planner("schema", name).stdout)["properties"]


def test_the_schema_knows_both_ways_to_write_a_size() -> None:
    """An editor that follows the schema accepts "512MiB" as well as a number of bytes."""
    properties = json.loads(planner("schema", "devices").stdout)["$defs"]["Device"]["properties"]
    number, text = properties["memory_budget"]["anyOf"]
    assert number["type"] == "integer"
    for size in ("512MiB", "1.5GB", "80 KiB", "100B"):
        assert re.match(text["pattern"], size)
    assert not re.match(text["pattern"], "512Mib")


def test_pis_example_is_a_valid_fleet() -> None:
    """The second example is read; for the digits ViT it has a plan too."""
    assert planner("solve", "--devices", ROOT / "examples" / "pis.json").returncode == 0


def test_help_imports_nothing_heavy() -> None:
    """`planner --help` and `planner solve` import no torch."""
    code = (
        "import sys, planner.cli as c\n"
        "try: c.app(['solve', '--devices', sys.argv[1]])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules and 'fvcore' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(DEVICES)], check=True, capture_output=True)
    code = "import sys, planner.cli; assert not {'torch', 'ortools', 'pandas', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
