"""Commands that are interrupted, killed, or out of space at any moment: nobody left, nothing half written, same end."""

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.schema import write_document
from tests.helpers.common import DEVICES
from tests.helpers.marked_processes import marked_environment, nobody_left
from tests.helpers.small_run import contents, make_small_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PLANNER = Path(sys.executable).with_name("planner")


def stopped_at_random(command: list[str], moments: int, longest_s: float, mark: str) -> int:
    """Run a command again and again, stop it after random times by SIGINT or SIGKILL; return how often it was stopped.

    However it ends, its exit code is one of ours, no process is left, and what it says is no traceback.
    """
    rng, stopped = random.Random(0), 0
    for _ in range(moments):
        number = rng.choice((signal.SIGINT, signal.SIGKILL))
        with subprocess.Popen(
            command,
            env=marked_environment(mark),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            time.sleep(rng.uniform(0, longest_s))
            process.send_signal(number)
            said = process.communicate(timeout=120)[1].decode()
        assert nobody_left(mark)
        # Before the command itself runs, Python ends in its own way.
        assert process.returncode in (0, 130, -number), said
        stopped += process.returncode != 0
    return stopped


@pytest.mark.slow
def test_execute_is_stopped_at_thirty_moments(tmp_path: Path) -> None:
    """In the end the bundle is that of a run without a stop, bit for bit."""
    run = make_small_run(tmp_path)
    plan = tmp_path / "plan.json"
    write_document(plan, run.plan)
    command: list[str | Path]
    command = [PLANNER, "execute", plan, "--model", run.card, "--epochs", "4", "--jobs", "2", "--out"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    began = time.monotonic()
    subprocess.run([*command, unbroken], check=True, capture_output=True)
    assert stopped_at_random([*map(str, command), str(broken)], 30, time.monotonic() - began, str(tmp_path))
    subprocess.run([*command, broken], check=True, capture_output=True)
    assert contents(broken) == contents(unbroken)


@pytest.mark.slow
def test_what_if_is_stopped_at_thirty_moments(tmp_path: Path) -> None:
    """In the end the rows are those of a run without a stop, but for their seconds."""
    command: list[str | Path]
    command = [PLANNER, "what-if", "-d", DEVICES, "--drop-each", "--jobs", "2", "--deterministic", "--time-limit", "3"]
    rows = []
    for name in ("unbroken.json", "broken.json"):
        out = tmp_path / name
        if name == "broken.json":
            stopped_at_random([*map(str, command), "--out", str(out)], 30, 20, str(tmp_path))
        subprocess.run([*command, "--out", out], check=True, capture_output=True)
        rows.append([row | {"seconds": 0} for row in json.loads(out.read_text())])
    assert rows[0] == rows[1]


def out_of_space(command: list[str | Path], cwd: Path, max_bytes: int) -> str:
    """Run a command where no file may be larger than this, which it must refuse; return its sentence."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

    # The limit is as a full disk to whoever writes, and can be set for one process.
    result = subprocess.run([PLANNER, *command], cwd=cwd, capture_output=True, text=True, preexec_fn=limit)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_a_plan_that_has_no_room_is_not_half_written(tmp_path: Path) -> None:
    """One sentence with the size that is needed; no file, and no temporary one, is left."""
    sentence = out_of_space(["solve", "-d", DEVICES, "--method", "greedy", "--out", "plan.json"], tmp_path, 2000)
    assert sentence.startswith("--out plan.json: cannot be written (File too large)")
    sentence = out_of_space(["solve", "-d", DEVICES, "--method", "greedy", "--out", "plan.json"], tmp_path, 4500)
    assert sentence.startswith("plan.json: cannot be written (File too large): needs ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["report", "plan.json", "-d", DEVICES, "--time-limit", "1", "--out", "report.html"],
        ["what-if", "-d", DEVICES, "--drop-each", "--time-limit", "1", "--out", "rows.csv"],
        ["probe", "make", "digits-vit", "--out", "probes"],
        ["execute", "plan.json", "--epochs", "0", "--out", "bundle"],
    ],
    ids=lambda command: command[0],
)
def test_no_room_is_one_sentence(command: list[str | Path], tmp_path: Path) -> None:
    """Every command that writes says what it could not write, and leaves nothing half written."""
    plan: list[str | Path]
    plan = [PLANNER, "solve", "-d", DEVICES, "--method", "greedy", "--max-accuracy-drop", "0.5", "--out", "plan.json"]
    subprocess.run(plan, cwd=tmp_path, check=True, capture_output=True)
    assert "cannot be written (File too large)" in out_of_space(command, tmp_path, 4500)
    assert not list(tmp_path.rglob(".*.json.*"))
