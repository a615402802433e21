"""The page as text: self-contained, escaped, certified, and with the commands that reproduce it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from planner.cli import page as report_command
from planner.cli.goal_flags import class_sets, placements, read_goal
from planner.report.page import page
from planner.report.page_tables import devices_table, scenarios_table, times_table
from planner.report.reproduce import commands, goal_file
from planner.schema import Goal, GoalFile, sha256_of, write_document
from planner.solver import solve
from tests.helpers.command_line import planner, refused
from tests.helpers.commands import PROGRAM, found, parse
from tests.helpers.common import DEVICES
from tests.helpers.drawn_plan import drawn, drawn_plan, many
from tests.helpers.frames import front, what_ifs
from tests.helpers.goals import floored
from tests.helpers.hostile import CLASSES, HOSTILE_DEVICES, hostile
from tests.helpers.pencil import ACCURACY_MODEL, fleet, profile, tight_fleet


class Parts(HTMLParser):
    """Parts of a page: tags with their attributes, scripts, and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif self.cdata_elem != "style":
            self.text += data


@pytest.fixture(scope="module")
def parts() -> Parts:
    """The page of the plan on paper, with N-1 scenarios and a front."""
    return Parts(page(*drawn(), without=what_ifs(), fronts=[front("memory")]))


def test_everything_is_in_the_file(parts: Parts) -> None:
    """No external source, no link except within the page, no font and no import."""
    for tag, attributes in parts.tags:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert tag not in ("link", "img", "iframe", "object")


def test_the_policy_lets_two_scripts_run_and_nothing_load(parts: Parts) -> None:
    """The policy allows plotly and the page's own script by their hashes."""
    policy = next(a["content"] for t, a in parts.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    run = [text for attributes, text in parts.scripts if "type" not in attributes]
    assert len(run) == 2
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == " ".join(f"'sha256-{text}'" for text in hashes)
    assert "connect-src" not in rules


def test_the_certificate_is_the_plans(parts: Parts) -> None:
    """Latency, bound and gap to the last digit, and the hashes of all three documents."""
    for text in ("7,000 µs", "6,300 µs", "10%", "objective latency; min retention 0.5; method exact"):
        assert text in parts.text, text
    for document in drawn():
        assert sha256_of(document) in parts.text


def test_sections_of_the_page(parts: Parts) -> None:
    """Sections on N-1 and the front appear when they were requested."""
    headings = {a.get("id") for t, a in parts.tags if t == "h2"}
    both = {"without-heading", "front-memory-heading"}
    assert both < headings
    assert {"time-heading", "certificate-heading", "reproduce-heading"} < headings
    bare = Parts(page(*drawn(), without=None, fronts=()))
    assert {a.get("id") for t, a in bare.tags if t == "h2"} == headings - both


def test_a_large_fleet_says_what_was_left_out() -> None:
    """Of 30 devices in use, N-1 is shown for some, and idle ones are counted, not listed."""
    plan, model, devices = many(100, 30)
    text = Parts(page(plan, model, devices, without=what_ifs(), fronts=())).text
    assert "Solved for the 4 slowest of 30 devices in use." in text
    assert "70 more devices are idle: 70 board." in text
    assert len(devices_table(plan, model, devices).rows) == 30


def test_tables_have_the_numbers_of_the_plots() -> None:
    """Times to the microsecond, the bottleneck in words, a dash for missing values."""
    table = times_table(drawn_plan())
    assert table.columns == ("device", "send [ms]", "compute [ms]", "return [ms]", "latency [ms]", "fusion [ms]")
    assert table.rows == (
        ("far", "2.000", "3.000", "1.500", "6.500", "-"),
        ("gateway", "0.000", "5.000", "0.000", "5.000", "0.500"),
    )
    rows = {row[0]: row for row in devices_table(*drawn()).rows}
    assert rows["far (bottleneck)"][1:4] == ("board", "a, b", "6.500")
    assert rows["near"][2] == "idle"
    impossible = scenarios_table(what_ifs()).rows[-1]
    assert impossible[:5] == ("without d", "impossible", "-", "-", "-")
    assert impossible[-1] == "No plan: d has the image and joins the features."


def test_hostile_names_are_text() -> None:
    """Names are escaped in the page, and none in the plots' data ends its script."""
    text = page(*hostile(), without=None, fronts=())
    parts = Parts(text)
    for name in (*CLASSES, *HOSTILE_DEVICES):
        assert name in parts.text, name
    data = [script for attributes, script in parts.scripts if attributes.get("type") == "application/json"]
    assert len(data) == 6
    for script in data:
        assert not set("<>&") & set(script)
        json.loads(script)
    assert not {"a", "img", "b", "i", "u"} & {t for t, a in parts.tags if (a.get("href") or "")[:1] != "#"}


# --- how to make it again


GOALS: list[dict[str, Any]] = [
    {},
    {"max_accuracy_drop": 0.05, "survive": 1, "leave_idle": True},
    {"min_retention": 0.0, "max_accuracy_drop": None},
    {"objective": "energy", "max_latency_ms": 12.5, "max_energy_mj": 3.25, "method": "exact"},
    {"method": "random-equal", "leave_out": ["-x", "it's $HOME"]},
    {
        "pin": {"a=b": ["pump", "gate way"]},
        "forbid": {"`ls`": ["x"]},
        "together": [["1", "2"]],
        "apart": [["a b", "c"]],
    },
]


@pytest.mark.parametrize("fields", GOALS)
def test_the_flags_say_the_goal(fields: dict[str, Any]) -> None:
    """The flags, parsed by a shell and the command line, give the same goal."""
    goal = Goal.model_validate(fields)
    plan = drawn_plan(goal=goal.model_dump(mode="json"), solver={"version": "", "seconds": 99.5, "seed": 7})
    line = commands(plan, "digits-vit").splitlines()[0]
    program, command, left = found(line)
    given = command.make_context(program, left).params
    flags = {key: given[key] for key in ("max_accuracy_drop", "min_retention", "max_latency_ms", "max_energy_mj")}
    flags |= {key: given[key] and given[key].value for key in ("objective", "method")}
    flags |= {key: given[key] for key in ("survive", "leave_idle")}
    flags |= {key: placements(given[key] or (), key) for key in ("pin", "forbid")}
    flags |= {key: class_sets(given[key] or (), key) for key in ("together", "apart")}
    flags["leave_out"] = tuple(given["leave_out"] or ())
    assert read_goal(None, flags) == goal
    assert (given["seed"], given["time_limit"], given["profile"]) == (7, 100, "digits-vit")
    assert goal_file(goal) is None


def test_the_defaults_need_no_flags() -> None:
    """A plan with default settings is reproduced without flags."""
    plan = drawn_plan(goal={})
    assert commands(plan, "my profile.json") == (
        "planner solve --devices devices.json --profile 'my profile.json' --out plan.json\n"
        "planner check plan.json --devices devices.json --profile 'my profile.json'\n"
        "planner report plan.json --devices devices.json --profile 'my profile.json' --out report.html"
    )
    for line in commands(plan, "p.json").splitlines():
        parse(line)


@pytest.mark.parametrize("fields", [{"together": [["a,b", "c"]]}, {"pin": {"a": ["x=y"]}}])
def test_what_flags_cannot_say_is_a_file(fields: dict[str, Any]) -> None:
    """Names with a separator of the flags go into a goal file."""
    goal = Goal.model_validate(fields)
    text = goal_file(goal)
    assert text is not None
    filed = GoalFile.model_validate_json(text)
    assert Goal.model_validate(filed.model_dump(exclude={"schema_version"})) == goal
    plan = drawn_plan(goal=goal.model_dump(mode="json"))
    assert " --goal goal.json " in commands(plan, "digits-vit")
    parts = Parts(page(plan, *drawn()[1:], without=None, fronts=()))
    assert "Put devices.json and goal.json below into a folder" in parts.text


def test_a_profile_that_does_not_come_along_is_asked_for(parts: Parts) -> None:
    """For a profile that is not shipped, the hash says which file is needed."""
    assert "You need the profile with the SHA-256 above as profile.json." in parts.text
    assert "--profile profile.json" in parts.text
    assert profile().model == "pencil"


# --- the command


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """From the files of a plan, the command writes a page with its bounds and the commands that made it."""
    predicting = profile(accuracy_model=ACCURACY_MODEL)
    plan = solve(predicting, fleet(), Goal(max_accuracy_drop=0.05, leave_idle=True))
    for name, document in (("plan", plan), ("profile", predicting), ("devices", fleet())):
        write_document(tmp_path / f"{name}.json", document)
    result = planner("report", "plan.json", "--profile", "profile.json", "--out", "page/plan.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"page/plan.html: page of plan.json, \d\.\d MiB; open it in a browser\.\n", result.stdout)
    parts = Parts((tmp_path / "page" / "plan.html").read_text(encoding="utf-8"))
    flags = "--max-accuracy-drop=0.05 --leave-idle"
    assert f"planner solve --devices devices.json --profile profile.json {flags} --out plan.json" in parts.text
    # The plan is one of the front's points, and losing each device in use is a row.
    assert {"without-heading", "front-accuracy-heading"} < {a.get("id") for t, a in parts.tags if t == "h2"}
    for name in {a.device for a in plan.assignments}:
        assert f"without {name}" in parts.text
    # Bounds are said to be for what they are for.
    assert plan.goal_bound_us is not None
    for figure in ("No plan at its floors is faster than", "No plan within the drop is faster than"):
        assert figure in parts.text
    assert f"{plan.goal_bound_us:,} µs" in parts.text
    assert f"Bound at retention floors of {plan.retention_floor:.2f}; " in parts.text
    assert plan.predicted_accuracy is not None
    assert f"Predicted accuracy{plan.predicted_accuracy.accuracy:.1%} (" in parts.text


def test_a_plan_for_another_fleet_has_no_page(tmp_path: Path) -> None:
    """A plan for another fleet is refused with the reason, and nothing is written."""
    plan, out = tmp_path / "plan.json", tmp_path / "report.html"
    plan.write_text(drawn_plan().model_dump_json())
    result = planner("report", plan, "--devices", DEVICES, "--out", out)
    refused(result, "the plan is for another profile")
    assert not out.exists()
    refused(planner("report", plan, "--devices", DEVICES, "--out", tmp_path), "must be a file, got a folder")


def test_of_many_devices_the_slowest_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one loss, that of the bottleneck is shown, and the page says that there are more."""
    plan = solve(profile(), tight_fleet(), floored(min_retention=0.6, leave_idle=True))
    assert len(plan.assignments) == 2
    for name, document in (("plan", plan), ("profile", profile()), ("devices", tight_fleet())):
        write_document(tmp_path / f"{name}.json", document)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_command, "_MAX_LOST", 1)
    result = CliRunner().invoke(PROGRAM, ["report", "plan.json", "--profile", "profile.json", "--jobs", "1"])
    assert result.exit_code == 0, result.output
    text = Parts((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "Solved for the 1 slowest of 2 devices in use." in text
    slowest, other = sorted(plan.assignments, key=lambda a: -a.latency_us)
    assert f"without {slowest.device}" in text
    assert f"without {other.device}" not in text
