"""Files that the command line refuses: one sentence with the place and the nearest name."""

import json
from pathlib import Path

import pytest

from tests.helpers.command_line import changed_demo, planner_here, refused
from tests.helpers.common import DEVICES, ROOT


def test_missing_file(tmp_path: Path) -> None:
    """A missing devices.json is named."""
    refused(planner_here("solve", "--devices", tmp_path / "nowhere.json"), "nowhere.json: no such file.")


def test_not_json(tmp_path: Path) -> None:
    """A file that is not JSON is named with the place of the mistake."""
    path = tmp_path / "devices.json"
    path.write_text('{"name": "x",,}')
    refused(planner_here("solve", "--devices", path), "devices.json: line 1, column 14: not JSON")


def test_misspelled_key_names_the_nearest(tmp_path: Path) -> None:
    """A misspelled key gets the nearest known key."""
    devices = [{"name": "pi", "kind": "esp32-s3", "memory_bugdet": "1MiB"}]
    path = changed_demo(tmp_path, devices=devices, links=[], aggregator="pi")
    refused(
        planner_here("solve", "--devices", path), "devices[0] 'pi'", "unknown key 'memory_bugdet'", "'memory_budget'?"
    )


def test_negative_budget(tmp_path: Path) -> None:
    """A negative budget is named with its device, the rule and the value."""
    devices = [
        {"name": "a", "kind": "esp32-s3", "memory_budget": 1000},
        {"name": "pi", "kind": "esp32-s3", "memory_budget": -1},
    ]
    path = changed_demo(tmp_path, devices=devices, links=[], aggregator="a")
    refused(
        planner_here("solve", "--devices", path), "devices.json: devices[1] 'pi': memory_budget must be > 0, got -1."
    )


def test_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    """An unknown kind gets the nearest known kind, and nothing is written."""
    devices = [{"name": "pi", "kind": "esp32-s33", "memory_budget": "1MiB"}]
    path, out = changed_demo(tmp_path, devices=devices, links=[], aggregator="pi"), tmp_path / "plan.json"
    refused(planner_here("solve", "--devices", path, "--out", out), "'pi'", "'esp32-s33'", "'esp32-s3'?")
    assert not out.exists()


def test_unreachable_device(tmp_path: Path) -> None:
    """A device without a path is named."""
    refused(planner_here("solve", "--devices", changed_demo(tmp_path, links=[])), "'bench-1'", "must be reachable")


def test_empty_fleet(tmp_path: Path) -> None:
    """A fleet must have a device."""
    refused(
        planner_here("solve", "--devices", changed_demo(tmp_path, devices=[], links=[])),
        "devices must have at least 1 entry, got 0",
    )


def test_class_twice_in_the_profile(tmp_path: Path) -> None:
    """A profile that names a class twice is refused."""
    profile = json.loads((ROOT / "profiles" / "digits-vit.json").read_text())
    profile["classes"][1] = "0"
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    refused(planner_here("solve", "--devices", DEVICES, "--profile", path), "'0' is given twice")


def test_unknown_profile_names_the_nearest() -> None:
    """A misspelled profile gets the nearest shipped one."""
    refused(planner_here("solve", "--devices", DEVICES, "--profile", "digit-vit"), "'digits-vit'?")


def test_plan_for_another_profile(plan_file: Path, tmp_path: Path) -> None:
    """A plan made from another profile is neither executed nor valid."""
    profile = json.loads((ROOT / "profiles" / "digits-vit.json").read_text()) | {"input_bytes": 128}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    out = tmp_path / "bundle"
    refused(planner_here("execute", plan_file, "--out", out, "--profile", path), "made from another profile")
    assert not out.exists()
    result = planner_here("check", plan_file, "--devices", DEVICES, "--profile", path)
    assert result.returncode == 1
    assert "for another profile" in result.stdout


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kept_heads", [[9], [], [], []], r"kept_heads[0] must rise within 0..3"),
        ("kept_heads", [[0]], "kept_heads must have 4 blocks, got 1"),
        ("kept_channel_groups", [[99], [], [], []], "kept_channel_groups[0] must rise within 0..31"),
        ("classes", ["zebra"], "class 'zebra' is not in the profile"),
        ("embed_dim", 20, "embed_dim must be a width of the profile, got 20"),
    ],
)
def test_a_plan_that_cannot_be_cut_is_not_begun(
    plan_file: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    """A plan that does not fit its profile is refused before anything is written."""
    plan = json.loads(plan_file.read_text())
    plan["assignments"][0][key] = value
    broken, out = tmp_path / "plan.json", tmp_path / "bundle"
    broken.write_text(json.dumps(plan))
    refused(planner_here("execute", broken, "--out", out), "the plan does not go with its profile", message)
    assert not out.exists()


def test_results_that_could_not_be_written_are_noticed_first(plan_file: Path, tmp_path: Path) -> None:
    """A folder in place of a file, and a file in place of a folder, are refused before any work."""
    refused(planner_here("solve", "--devices", DEVICES, "--out", tmp_path), "must be a file, got a folder")
    refused(planner_here("profile", "digits-vit", "--out", "."), "must be a file, got a folder")
    (tmp_path / "afile").touch()
    refused(planner_here("execute", plan_file, "--out", tmp_path / "afile"), "must be a folder, got a file")


def test_a_misspelled_kind_is_refused_even_with_a_rate(tmp_path: Path) -> None:
    """A misspelled kind would silently lose its card's overhead and power."""
    devices = [{"name": "a", "kind": "esp32s3", "macs_per_second": 8e7, "memory_budget": "1MiB"}]
    refused(
        planner_here("solve", "--devices", changed_demo(tmp_path, devices=devices, links=[], aggregator="a")),
        "'esp32-s3'?",
    )


def test_evaluate_refuses_what_is_not_a_bundle(tmp_path: Path) -> None:
    """An empty folder is not a bundle."""
    refused(planner_here("evaluate", tmp_path), "must be a bundle")
