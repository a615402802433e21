"""Standard output that is closed or full, as where a daemon starts commands: one sentence, and nothing half done."""

import subprocess
import sys
from pathlib import Path

import pytest

from planner.schema import Plan, read_document
from tests.helpers.common import DEVICES

PLANNER = Path(sys.executable).with_name("planner")


def in_shell(line: str, cwd: Path) -> tuple[int, str]:
    """Run a shell line in which `planner` is the command; return its exit code and what it wrote on stderr."""
    shell = ["sh", "-c", line.replace("planner ", f"{PLANNER} ", 1)]
    result = subprocess.run(shell, cwd=cwd, stderr=subprocess.PIPE, text=True, timeout=300)
    return result.returncode, result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["planner schema devices", "planner --help"])
def test_a_full_output_is_said(command: str, tmp_path: Path) -> None:
    """What could not be printed is a failure, without a word of Python's."""
    expected = "Standard output: cannot be written (No space left on device).\n"
    assert in_shell(f"{command} >/dev/full", tmp_path) == (2, expected)


def test_a_closed_output_is_said_before_any_work(tmp_path: Path) -> None:
    """Without a file to write, the result would be lost; the plan, which is not there, is not even looked for."""
    code, message = in_shell("planner show plan.json >&-", tmp_path)
    assert (code, message) == (2, "Standard output must be open, as the result is printed there; it is closed.\n")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_with_closed_streams_a_file_is_written_all_the_same(closed: str, tmp_path: Path) -> None:
    """Work goes on where its result is a file, into which nothing that is printed gets."""
    line = f"planner solve -d {DEVICES} --method greedy --out plan.json {closed}"
    assert in_shell(line, tmp_path) == (0, "")
    assert read_document(tmp_path / "plan.json", Plan).goal.method == "greedy"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """`| head -1` ends a command quietly."""
    code, message = in_shell("planner schema profile | head -1 >/dev/null", tmp_path)
    assert (code, message) == (0, "")
