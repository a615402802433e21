"""Commands that are interrupted or killed at any moment: nobody left, nothing half written, same end."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.runtime.deployment import read_deployment
from planner.schema import write_document
from tests.helpers.common import DEVICES, PATIENCE_S
from tests.helpers.deployments import linux_boards, make_small_bundle
from tests.helpers.marked_processes import marked_environment, nobody_left
from tests.helpers.small_run import contents, make_small_run, small_card

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PLANNER = Path(sys.executable).with_name("planner")


def stopped_at_random(
    command: list[str], moments: int, longest_s: float, mark: str, rng: random.Random | None = None
) -> int:
    """Run a command again and again, stop it after random times by SIGINT or SIGKILL; return how often it was stopped.

    However it ends, its exit code is one of ours, no process is left, and what it says is no traceback.
    """
    rng, stopped = rng or random.Random(0), 0
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
            said = process.communicate(timeout=PATIENCE_S)[1].decode()
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


@pytest.mark.slow
def test_profile_is_stopped_at_eight_moments(tmp_path: Path) -> None:
    """In the end the profile is that of a run without a stop, but for the times of this machine and of the run."""
    command: list[str | Path]
    command = [PLANNER, "profile", small_card(tmp_path), "--images-per-class", "4", "--trial-plans", "2"]
    command += ["--epochs", "0", "--jobs", "2", "--out"]
    unbroken, broken = tmp_path / "unbroken.json", tmp_path / "broken.json"
    began = time.monotonic()
    subprocess.run([*command, unbroken], check=True, capture_output=True)
    assert stopped_at_random([*map(str, command), str(broken)], 8, time.monotonic() - began, str(tmp_path))
    subprocess.run([*command, broken], check=True, capture_output=True)
    profiles = [json.loads(path.read_text()) for path in (unbroken, broken)]
    for profile in profiles:
        del profile["latency"], profile["provenance"]
    assert profiles[0] == profiles[1]


@pytest.mark.slow
def test_probe_make_is_stopped_at_ten_moments(tmp_path: Path) -> None:
    """With a manifest the probes are those of a run without a stop, byte for byte; without one, they can be made."""
    command: list[str | Path] = [PLANNER, "probe", "make", "digits-vit", "--out"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    began = time.monotonic()
    subprocess.run([*command, unbroken], check=True, capture_output=True)
    seconds = time.monotonic() - began
    rng = random.Random(0)
    for _ in range(10):
        stopped_at_random([*map(str, command), str(broken)], 1, seconds, str(tmp_path), rng)
        if (broken / "manifest.json").exists():
            assert contents(broken) == contents(unbroken)
            shutil.rmtree(broken)
    subprocess.run([*command, broken], check=True, capture_output=True)
    assert contents(broken) == contents(unbroken)


@pytest.mark.slow
def test_export_is_stopped_at_fifteen_moments(tmp_path: Path) -> None:
    """There is no deployment, or a whole one; in the end its graphs are those of a run without a stop."""
    bundle = make_small_bundle(tmp_path, linux_boards("float32", "int8", "float32"))
    write_document(tmp_path / "devices.json", bundle.fleet)
    command: list[str | Path] = [PLANNER, "export", bundle.path, "-d", tmp_path / "devices.json", "--out"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    began = time.monotonic()
    subprocess.run([*command, unbroken], check=True, capture_output=True)
    seconds = time.monotonic() - began
    rng = random.Random(0)
    for _ in range(15):
        stopped_at_random([*map(str, command), str(broken)], 1, seconds, str(tmp_path), rng)
        if broken.exists():
            read_deployment(broken)
            shutil.rmtree(broken)
    subprocess.run([*command, broken], check=True, capture_output=True)
    found, expected = contents(broken), contents(unbroken)
    assert found.keys() == expected.keys()
    graphs = [name for name in found if ".onnx" in name]
    assert graphs
    assert {name: found[name] for name in graphs} == {name: expected[name] for name in graphs}
    # Neither is there anything else beside it.
    assert not list(tmp_path.glob(".*"))
