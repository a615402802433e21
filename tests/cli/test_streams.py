"""Standard output that is closed or full, as where a daemon starts commands: one sentence, and nothing half done."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from planner import cli
from planner.schema import Plan, read_document
from tests.helpers.command_line import planner_here
from tests.helpers.common import DEVICES

PLANNER = Path(sys.executable).with_name("planner")


def in_shell(line: str, cwd: Path) -> tuple[int, str]:
    """Run a shell line in which `planner` is the command; return its exit code and what it wrote on stderr."""
    shell = ["sh", "-c", line.replace("planner ", f"{PLANNER} ", 1)]
    result = subprocess.run(shell, cwd=cwd, stderr=subprocess.PIPE, text=True)
    return result.returncode, result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["planner schema profile", "planner --help"])
def test_a_full_output_is_said(command: str, tmp_path: Path) -> None:
    """What could not be printed is a failure, without a word of Python's."""
    expected = "Standard output: cannot be written (No space left on device).\n"
    assert in_shell(f"{command} >/dev/full", tmp_path) == (2, expected)


@pytest.mark.parametrize(
    ("number", "named", "code", "sentence"),
    [
        (errno.EMFILE, (), 1, "This machine does not give what this needs (Too many open files).\n"),
        (errno.EACCES, ("here/plan.json",), 2, "here/plan.json: cannot be used (Permission denied).\n"),
    ],
)
def test_what_the_system_refuses_elsewhere_is_not_laid_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, number: int, named: tuple[str, ...], code: int, sentence: str
) -> None:
    """An error of the system is said with its own reason, and with its file where it has one."""

    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number), *named)

    monkeypatch.setattr(cli, "app", refuse)
    result = planner_here()
    assert (result.returncode, result.stdout, result.stderr) == (code, "", sentence)


def test_an_error_without_a_number_is_a_fault_and_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of the system has failed: the error goes its way, with all that it says."""

    def fail(**_: object) -> None:
        raise OSError("cannot identify image file")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(OSError, match=r"\Acannot identify image file\Z"):
        planner_here()


def test_a_closed_output_is_said_before_any_work(tmp_path: Path) -> None:
    """Without a file to write, the result would be lost; the plan, which is not there, is not even looked for."""
    code, message = in_shell("planner show plan.json >&-", tmp_path)
    assert (code, message) == (2, "Standard output must be open, as the result is printed there; it is closed.\n")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_with_closed_streams_a_file_is_written_all_the_same(closed: str, tmp_path: Path) -> None:
    """Work goes on where its result is a file, into which nothing that is printed gets."""
    line = f"planner solve -d {DEVICES} --method greedy --time-limit 600 --out plan.json {closed}"
    assert in_shell(line, tmp_path) == (0, "")
    assert read_document(tmp_path / "plan.json", Plan).goal.method == "greedy"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """`| head -1` ends a command quietly."""
    code, message = in_shell("planner schema profile | head -1 >/dev/null", tmp_path)
    assert (code, message) == (0, "")
