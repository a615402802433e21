"""The command, run as a user would run it: installed, in a process of its own, or in this one, which is quicker."""

import io
import json
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from planner.cli import main
from tests.helpers.common import DEVICES, PATIENCE_S

# Flags of a solve whose plan does not depend on how busy the machine is.
COUNTED = ("--deterministic", "--time-limit", "10")


def planner(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a user would, at 80 columns."""
    command = [str(Path(sys.executable).with_name("planner")), *map(str, args)]
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=PATIENCE_S)


def planner_here(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, at 80 columns: a refusal takes no second for imports."""
    words = ["planner", *map(str, args)]
    # As those of a process: bytes beneath, whose encoding the command sets.
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with (
        patch.object(sys, "argv", words),
        patch.dict(os.environ, COLUMNS="80"),
        warnings.catch_warnings(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            # Without a code, a process ends with 0.
            code = ended.code or 0
    printed = [stream.buffer.getvalue().decode() for stream in (out, err)]
    assert isinstance(code, int)
    return subprocess.CompletedProcess(words, code, *printed)


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
