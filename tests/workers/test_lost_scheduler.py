"""A Dask scheduler that dies while what-if works: what was solved is shown, and one sentence is the last thing said."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from planner.errors import PlannerError
from planner.workers import DaskExecutor, cluster
from tests.helpers.common import DEVICES, PATIENCE_S

pytest.importorskip("distributed")

# Every wait for another process ends, and then the test fails.
PLANNER = Path(sys.executable).with_name("planner")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Scheduler and worker, each a process of its own: the scheduler, and its address, at a free port."""
    described = tmp_path / "scheduler.json"
    place = ["--host", "127.0.0.1", "--no-dashboard"]
    with ExitStack() as stack:
        scheduler = ["distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(described)]
        running = _started(stack, [*scheduler, *place], tmp_path)
        _wait_for(described)
        address = json.loads(described.read_text())["address"]
        _started(stack, ["distributed.cli.dask_worker", address, "--nthreads", "1", *place], tmp_path)
        yield running, address


def _started(stack: ExitStack, module: list[str], cwd: Path) -> "subprocess.Popen[bytes]":
    """Start a Python module, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.02)


def test_a_scheduler_dies_and_one_sentence_is_the_last_word(
    processes: tuple["subprocess.Popen[bytes]", str], tmp_path: Path
) -> None:
    """Dask's log is silent, and today's row is printed; the file of solved rows is there for the next run."""
    scheduler, address = processes
    command: list[str | Path] = [PLANNER, "what-if", "-d", DEVICES, "--drop-each", "--time-limit", "1"]
    command += ["--sweep", "max-accuracy-drop=0.01..0.05/5", "--scheduler", address, "--out", "rows.csv"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as what_if:
        # Today's plan is kept there before the first scenario is sent.
        _wait_for(tmp_path / "rows.csv.part")
        scheduler.kill()
        printed, said = what_if.communicate(timeout=PATIENCE_S)
    assert what_if.returncode == 1
    assert said.splitlines() == [
        f"{address}: the scheduler must stay until the work is done, got no connection to it any more; "
        "the same command goes on from there."
    ]
    assert "today" in printed
    assert not (tmp_path / "rows.csv").exists()


@pytest.mark.parametrize("status", ["connecting", "closing", "closed"])
def test_a_client_without_a_scheduler_is_asked_nothing(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer would not come before its own, longer time is over."""
    monkeypatch.setattr(cluster, "_RECONNECT_TIMEOUT_S", 0.1)
    with pytest.raises(PlannerError, match="tcp://x:1: the scheduler must stay until the work is done"):
        _ = DaskExecutor(SimpleNamespace(status=status), "tcp://x:1").num_workers


def test_a_connection_that_comes_back_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the client connects anew, its work waits."""

    class Client:
        def __init__(self) -> None:
            self.looks = 0

        @property
        def status(self) -> str:
            self.looks += 1
            return "connecting" if self.looks < 4 else "running"

        def nthreads(self) -> dict[str, int]:
            assert self.looks >= 4
            return {"tcp://x:2": 3}

    monkeypatch.setattr(cluster, "_RECONNECT_TIMEOUT_S", PATIENCE_S)
    assert DaskExecutor(Client(), "tcp://x:1").num_workers == 3
