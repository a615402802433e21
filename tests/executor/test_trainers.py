"""Trainers and interruptions do not matter: the bundle is the same, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from planner.errors import InputError, PlannerError
from planner.executor.epoch_tasks import OnEpoch, train_by_epochs
from planner.executor.trainers import InlineTrainer, ParallelTrainer, make_trainer
from planner.network.training import TrainingTask
from planner.schema import write_document
from planner.workers import ProcessExecutor, tls_of, usable_cores
from tests.helpers.common import PATIENCE_S
from tests.helpers.marked_processes import alive, marked_environment, nobody_left
from tests.helpers.small_run import SmallRun, contents, execute_watched, make_small_run, metrics_without_seconds


class StoppedError(Exception):
    """Raised in the middle of a run."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three small sub-models."""
    return make_small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def unbroken(run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an uninterrupted run in one process."""
    out = tmp_path_factory.mktemp("unbroken") / "bundle"
    execute_watched(run, out)
    return out


def stop_at(number: int) -> Callable[[int], None]:
    """Return a callback that stops a run after a number of epochs."""

    def on_epoch(seen: int) -> None:
        if seen == number:
            raise StoppedError

    return on_epoch


def test_stopped_at_several_points_and_started_again(run: SmallRun, unbroken: Path, tmp_path: Path) -> None:
    """Stops in the distillation data, a sub-model, the fusion and the joint training leave the bundle unchanged."""
    for number in (0, 1, 8, 11):
        with pytest.raises(StoppedError):
            execute_watched(run, tmp_path, on_epoch=stop_at(number))
    # As a run that is killed while it writes leaves it.
    (tmp_path / ".metrics.jsonl.1bx32xf_").touch()
    execute_watched(run, tmp_path)
    assert contents(tmp_path) == contents(unbroken)
    assert metrics_without_seconds(tmp_path) == metrics_without_seconds(unbroken)


def test_a_resumed_run_repeats_nothing(run: SmallRun, tmp_path: Path) -> None:
    """A resumed run reads training states and distillation data, and does not write them again."""
    with pytest.raises(StoppedError):
        execute_watched(run, tmp_path, on_epoch=stop_at(5))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert {path.name for path in written} >= {"order.json", "lessons.safetensors", "00-00-a.safetensors"}
    with pytest.raises(StoppedError):
        execute_watched(run, tmp_path, on_epoch=stop_at(5))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == written


def children() -> list[int]:
    """Return the children of this process."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_of_two_processes_is_killed(run: SmallRun, unbroken: Path, tmp_path: Path) -> None:
    """A killed process is an error with advice; the next run ends with the bundle and metrics of one process."""

    def kill_one(seen: int) -> None:
        if seen == 2:
            os.kill(children()[0], signal.SIGKILL)

    with pytest.raises(PlannerError, match=r"One of 2 processes was killed.*finished epochs, with fewer `jobs`"):
        execute_watched(run, tmp_path, ParallelTrainer(ProcessExecutor(2)), kill_one)
    execute_watched(run, tmp_path, ParallelTrainer(ProcessExecutor(2)))
    assert contents(tmp_path) == contents(unbroken)
    assert metrics_without_seconds(tmp_path) == metrics_without_seconds(unbroken)


def started(run: SmallRun, out: Path) -> subprocess.Popen[str]:
    """Start the command with two processes, and return it after its first epoch."""
    plan_file = out.with_suffix(".json")
    write_document(plan_file, run.plan)
    command = [sys.executable, "-c", "import planner.cli; planner.cli.main()", "execute", str(plan_file)]
    command += ["--out", str(out), "--model", run.card, "--epochs", "600", "--jobs", "2"]
    process = subprocess.Popen(
        command, text=True, stderr=subprocess.PIPE, start_new_session=True, env=marked_environment(str(out))
    )
    while not list((out / "work").glob("00-*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert len(alive(str(out))) > 2
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_is_left_when_the_command_ends(run: SmallRun, tmp_path: Path) -> None:
    """Ctrl-C is reported in one line; SIGKILL of the command leaves no other process behind."""
    process = started(run, tmp_path / "stopped")
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130
    assert stderr == "Stopped. What was finished is kept: the same command goes on from there.\n"
    assert nobody_left(str(tmp_path / "stopped"))
    process = started(run, tmp_path / "killed")
    process.kill()
    process.communicate()
    assert nobody_left(str(tmp_path / "killed"))


def test_an_epoch_that_is_always_lost_ends_the_run(run: SmallRun, tmp_path: Path) -> None:
    """An epoch lost with its worker is repeated from the same state, but not for ever."""

    class Lossy:
        num_workers, device = 1, "cpu"
        num_begun = 0

        def __call__(self, tasks: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
            def submit(i: int, state: bytes | None) -> "Future[bytes]":
                self.num_begun += state is None
                future: Future[bytes] = Future()
                future.cancel()
                future.set_running_or_notify_cancel()
                return future

            train_by_epochs(tasks[:1], states[:1], on_epoch, submit)

    lossy = Lossy()
    with pytest.raises(PlannerError, match=r"training 'a': whoever ran it died, 4 times.*goes on"):
        execute_watched(run, tmp_path, lossy)
    assert lossy.num_begun == 4


def test_make_trainer() -> None:
    """One job is this process, more are processes; arguments that do not go together are refused."""
    with make_trainer(jobs=1) as trainer:
        assert trainer == InlineTrainer()
    with make_trainer(jobs=3) as trainer:
        assert trainer == ParallelTrainer(ProcessExecutor(3))
    with make_trainer() as trainer:
        assert trainer.num_workers == usable_cores()
    for refused, match in (
        ({"scheduler": "tcp://x:1", "jobs": 2}, "give it without `jobs`"),
        ({"tls": tls_of(Path(__file__), Path(__file__), Path(__file__))}, "are for `scheduler=tls://host:port`"),
        ({"device": "cuda:99"}, "device 'cuda:99': must be there"),
        ({"device": "tpu"}, "must be cpu, cuda or cuda:n"),
    ):
        with pytest.raises(InputError, match=match), make_trainer(**refused):
            pass


def test_tls_needs_all_three_files(tmp_path: Path) -> None:
    """Missing TLS files are named, whether not given or not found."""
    assert tls_of(None, None, None) is None
    with pytest.raises(InputError, match="got none for `tls_cert`, `tls_key`"):
        tls_of(Path(__file__), None, None)
    with pytest.raises(InputError, match=r"`tls_ca=.*ca\.pem`: must be a PEM file"):
        tls_of(tmp_path / "ca.pem", None, None)
