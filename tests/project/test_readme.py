"""The README is true: its commands and its Python run, its flags exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.common import ROOT

SHORTER = {"planner execute": " --epochs 1", "planner rehearse": " --images 10"}
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_steps_run(tmp_path: Path) -> None:
    """The step-by-step commands run in a folder that has only the examples, with one epoch and few images."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    steps = next(block for block in blocks("sh") if "planner solve" in block)
    commands = [line for line in steps.splitlines() if line.startswith("planner ")]
    assert len(commands) == 5
    for line in commands:
        short = line + next((more for name, more in SHORTER.items() if line.startswith(name)), "")
        result = subprocess.run(short.split(), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{short}: {result.stderr}"


def test_the_python_runs() -> None:
    """The Python example runs as printed."""
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=ROOT, check=True, capture_output=True)


def test_make_targets_exist() -> None:
    """Every `make` target that the README names is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", README)) | set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_flags_exist() -> None:
    """Every flag in the README exists."""
    import typer.main

    from planner.cli import app

    known, commands = set(), [typer.main.get_command(app)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        known |= {flag for parameter in command.params for flag in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known


def test_the_fleet_example_is_valid() -> None:
    """The devices.json in the README is a valid fleet."""
    from planner.schema import Fleet

    for block in blocks("json"):
        assert len(Fleet.model_validate_json(block, strict=True).members) == 4


def test_the_changelog_has_this_version() -> None:
    """The changelog has an entry for the package's version."""
    import planner

    assert f"## {planner.__version__}" in (ROOT / "CHANGELOG.md").read_text()
