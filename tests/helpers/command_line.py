"""The installed command, run as a user would run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.common import DEVICES


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


def changed_demo(tmp_path: Path, **changes: object) -> Path:
    """Write the demo fleet with some keys changed."""
    path = tmp_path / "devices.json"
    path.write_text(json.dumps(json.loads(DEVICES.read_text()) | changes))
    return path
