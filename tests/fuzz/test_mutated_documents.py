"""Mutants of every document, read and used: each is accepted, or refused in one sentence that names the file."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from planner.errors import InputError
from planner.library import folder, load_profile, read_plan
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
    ProbeResult,
    Profile,
    Rehearsal,
    ScenarioFile,
    read_document,
    to_json,
)
from planner.solver import SolveOptions, solve
from planner.whatif import Case, ChangeRequest, axes_of, expand
from tests.helpers.common import DEVICES, ROOT, Json
from tests.helpers.drawn_plan import drawn, drawn_plan
from tests.helpers.mutants import FEW, MANY, assert_honest, mutants_of_document
from tests.helpers.pencil import fleet, profile
from tests.helpers.rehearsals import rehearsal
from tests.helpers.timed_networks import result_data

_GOAL = {
    "objective": "latency",
    "max_accuracy_drop": None,
    "min_retention": 0.3,
    "max_latency_ms": 50.0,
    "survive": 0,
    "pin": {"a": ["gateway"]},
    "forbid": {"b": ["near"]},
    "leave_out": ["far"],
}
_SCENARIOS = {
    "scenarios": [
        {
            "name": "a",
            "drop": ["far"],
            "add": {"esp32-s3": 2},
            "set": {"gateway.memory_budget": "512KiB"},
            "scale": {"memory": 0.5},
            "goal": {"survive": 1},
            "links": [{"between": ["gateway", "near"], "bandwidth_mbps": 1, "latency_ms": 2}],
        }
    ]
}
_CARD = json.loads((folder("models") / "digits-vit" / "card.json").read_text())
_IMAGES = _CARD | {"data": {"source": "folder", "train": "train", "test": "test", "folders_by_number": True}}
_SOUNDS = _CARD | {
    "data": {"source": "audio-npz", "train": "t.npz", "test": "e.npz", "spectrogram": {"sample_rate": 16_000}}
}
_BUNDLE = {
    "model": "digits-vit",
    "recipe": "default",
    "epochs": 1.5,
    "seed": 0,
    "teacher_sha256": "0" * 64,
    "devices": {"a": "devices/00-a.safetensors"},
    "sha256": {"plan.json": "0" * 64},
}


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
    """Plan with the goal."""
    goal = Goal.model_validate(read_document(path, GoalFile).model_dump(exclude={"schema_version"}))
    _naming(path, lambda: solve(profile(), fleet(), goal, SolveOptions(time_limit_s=0.05, advice=False)))


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


def _evaluation() -> Json:
    size = {"params": 10, "macs": 20}
    return {
        "num_images": 5,
        "num_calibration_images": 5,
        "whole_accuracy": 0.9,
        "fused_accuracy": 0.8,
        "whole_by_class": {"a": 0.9, "b": 0.9},
        "fused_by_class": {"a": 0.8, "b": 0.8},
        "without_device": {"far": 0.5},
        "without_device_by_class": {"far": {"a": 0.5, "b": 0.5}},
        "whole": size,
        "devices": {"far": size},
    }


CASES: dict[str, tuple[Any, Callable[[Path], object]]] = {
    "devices": (json.loads(to_json(fleet())), use_fleet),
    "demo": (json.loads(DEVICES.read_text()), lambda path: read_document(path, Fleet)),
    "goal": (_GOAL, use_goal),
    "scenarios": (_SCENARIOS, use_scenarios),
    "plan": (json.loads(to_json(drawn_plan())), use_plan),
    "profile": (json.loads(to_json(profile())), use_profile),
    "card": (_CARD, use_card),
    "card-images": (_IMAGES, use_card),
    "card-sounds": (_SOUNDS, use_card),
    "kind": (
        json.loads((ROOT / "profiles" / "devices" / "esp32-s3.json").read_text()),
        lambda path: read_document(path, DOCUMENTS["kind"]),
    ),
    "bundle": (_BUNDLE, lambda path: read_document(path, DOCUMENTS["bundle"])),
    "evaluation": (_evaluation(), lambda path: read_document(path, DOCUMENTS["evaluation"])),
    "rehearsal": (
        json.loads(to_json(rehearsal())),
        lambda path: show(rehearsal_text(read_document(path, Rehearsal))),
    ),
    "timings": (result_data(), lambda path: read_document(path, ProbeResult)),
    "probes": (result_data()["manifest"], lambda path: read_document(path, DOCUMENTS["probes"])),
}


def fuzz(name: str, count: int, seed: int, tmp_path: Path) -> None:
    """Assert that every mutant of a document is answered honestly."""
    data, use = CASES[name]
    path = tmp_path / f"{name}.json"
    assert_honest(path, mutants_of_document(data, count, seed), lambda: use(path))


@pytest.mark.parametrize("name", CASES)
def test_a_mutant_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Some hundred mutants of each document."""
    fuzz(name, FEW, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_thousands_of_mutants_are_read_or_refused(name: str, tmp_path: Path) -> None:
    """Some thousand other mutants of each document."""
    fuzz(name, MANY, 1, tmp_path)


def test_the_documents_themselves_are_accepted(tmp_path: Path) -> None:
    """What is mutated is right before it is."""
    for name, (data, use) in CASES.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(data))
        use(path)
