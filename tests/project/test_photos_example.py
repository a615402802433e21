"""examples/photos: fleets that are worth splitting for, and a script that says what is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from planner.library import load_fleet, load_profile
from planner.schema import ModelCard
from tests.helpers.command_line import planner
from tests.helpers.common import ROOT

PHOTOS = ROOT / "examples" / "photos"
PROFILE = "dinov2-small-caltech101"
FLEETS = sorted(path for path in PHOTOS.glob("*.json") if path.name != "card-additions.json")


def run(*flags: object) -> "subprocess.CompletedProcess[str]":
    """Run the example."""
    command = [sys.executable, str(PHOTOS / "run.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_fleets_are_valid_and_of_real_linux_boards(path: Path) -> None:
    """Three or four boards of kinds that have a card."""
    fleet = load_fleet(path)
    assert sum(device.count for device in fleet.devices) in (3, 4)
    assert all(device.kind for device in fleet.devices)


def test_splitting_is_the_answer_on_four_pis(tmp_path: Path) -> None:
    """The shipped profile and fleet have a plan out of the box, and more boards than one are in it."""
    out = tmp_path / "plan.json"
    goal = ("--objective", "accuracy", "--max-latency-ms", "80")
    flags = ("--profile", PROFILE, "--devices", PHOTOS / "four-pis.json", *goal)
    solved = planner("solve", *flags, "--deterministic", "--time-limit", "8", "--out", out)
    assert solved.returncode == 0, solved.stderr
    assert len(json.loads(out.read_text())["assignments"]) > 1


def test_the_card_is_completed_by_keys_that_a_card_has() -> None:
    """Beside the data: its accuracy is the profile's whole model's, within the error of half a test part."""
    additions = json.loads((PHOTOS / "card-additions.json").read_text())
    assert set(additions) <= set(ModelCard.model_fields)
    model = load_profile(PROFILE).accuracy_model
    assert model is not None
    assert additions["accuracy"]["test"] == pytest.approx(1 - model.whole_error, abs=0.02)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "the checkpoint must be named: make example-photos MODEL=FOLDER; see examples/photos/README.md.\n"),
        (
            ("--model", "/"),
            "the checkpoint must be in MODEL, got no model.safetensors in /; see examples/photos/README.md.\n",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(flags: tuple[str, ...], message: str) -> None:
    """Without a checkpoint nothing is begun."""
    refused = run(*flags)
    assert refused.returncode == 1
    assert (refused.stdout, refused.stderr) == ("", message)


def test_photographs_must_be_in_folders(tmp_path: Path) -> None:
    """A checkpoint alone is not enough."""
    (tmp_path / "model.safetensors").touch()
    refused = run("--model", tmp_path, "--photos", tmp_path)
    expected = f"the photographs must be in PHOTOS, got no train in {tmp_path}; see examples/photos/README.md.\n"
    assert (refused.returncode, refused.stderr) == (1, expected)
