"""The accuracy benchmark with a small budget of a minute or two."""

import subprocess
import sys
from pathlib import Path

from benchmarks.accuracy import ablations
from tests.helpers.common import ROOT


def test_a_small_run(tmp_path: Path) -> None:
    """Digits, one fleet, one seed: a page with a row for each method; a second run repeats nothing."""
    environment = {"PLANNER_CACHE": str(tmp_path / "cache"), "PATH": "", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.accuracy", "--small", "--jobs", "1", "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=900)
    text = (tmp_path / "out" / "accuracy.md").read_text()
    for row in ("pruned", "devit", "ed-vit", "ours", "whole", ablations.NO_TEACHER):
        assert f"| {row} |" in text
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.json")}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.json")} == files
    assert (tmp_path / "out" / "accuracy.md").read_text() == text
