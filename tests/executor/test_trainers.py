"""Who trains does not matter, nor how often it is stopped: the bundle is the same, bit for bit."""

import multiprocessing
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
from planner.executor.epoch_tasks import OnEpoch, Trainer, train_by_epochs
from planner.executor.execute import execute
from planner.executor.trainers import InlineTrainer, ParallelTrainer, make_trainer
from planner.network.training import TrainingTask
from planner.schema import write_document
from planner.workers import ProcessExecutor, tls_of, usable_cores
from tests.helpers.small_order import Ordered, contents, small_order

EPOCHS = 4


class StoppedError(Exception):
    """Raised in the middle of a run."""


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Ordered:
    """Three small sub-models."""
    return small_order(tmp_path_factory.mktemp("order"))


def carry_out(order: Ordered, out: Path, means: Trainer | None = None, on_epoch: Callable[[int], None] = id) -> None:
    """Execute the order; `on_epoch` is called with the number of epochs so far."""
    seen = -1

    def on_progress(what: str, done: float, total: float) -> None:
        nonlocal seen
        if what != "lessons" or seen < 0:
            seen += 1
            on_epoch(seen)

    execute(order.plan, order.profile, out, model=order.card, epochs=EPOCHS, means=means, on_progress=on_progress)


@pytest.fixture(scope="module")
def unbroken(order: Ordered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a run in one process that nobody stopped."""
    out = tmp_path_factory.mktemp("unbroken") / "bundle"
    carry_out(order, out)
    return out


def stop_at(number: int) -> Callable[[int], None]:
    """Return what stops a run after so many epochs."""

    def on_epoch(seen: int) -> None:
        if seen == number:
            raise StoppedError

    return on_epoch


def test_stopped_at_several_points_and_started_again(order: Ordered, unbroken: Path, tmp_path: Path) -> None:
    """Before the lessons, in the first sub-model, in the fusion and in the joint training: the unbroken bundle."""
    for number in (0, 1, 8, 11):
        with pytest.raises(StoppedError):
            carry_out(order, tmp_path, on_epoch=stop_at(number))
    carry_out(order, tmp_path)
    assert contents(tmp_path) == contents(unbroken)
    assert metrics(tmp_path) == metrics(unbroken)


def metrics(bundle: Path) -> list[str]:
    """Return the lines of a bundle's metrics without their seconds."""
    lines = (bundle / "metrics.jsonl").read_text().splitlines()
    return [line[: line.index('"seconds"')] + line[line.index('"best"') :] for line in lines]


def test_a_resumed_run_repeats_nothing(order: Ordered, tmp_path: Path) -> None:
    """What was written before a stop is read again, not made again: states, and what the teacher said."""
    with pytest.raises(StoppedError):
        carry_out(order, tmp_path, on_epoch=stop_at(5))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert {path.name for path in written} >= {"order.json", "lessons.safetensors", "00-00-a.safetensors"}
    with pytest.raises(StoppedError):
        carry_out(order, tmp_path, on_epoch=stop_at(5))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == written


def test_one_of_two_processes_is_killed(order: Ordered, unbroken: Path, tmp_path: Path) -> None:
    """As when memory runs out: an error says what to do. Two others go on to the bundle and metrics of one process."""

    def kill_one(seen: int) -> None:
        if seen == 2:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(PlannerError, match=r"One of 2 processes was killed.*finished epochs, with fewer --jobs"):
        carry_out(order, tmp_path, ParallelTrainer(ProcessExecutor(2)), kill_one)
    carry_out(order, tmp_path, ParallelTrainer(ProcessExecutor(2)))
    assert contents(tmp_path) == contents(unbroken)
    assert metrics(tmp_path) == metrics(unbroken)


def group(leader: int) -> list[int]:
    """Return the processes of a process group that are alive."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == leader and state != "Z":
            alive.append(int(stat.parent.name))
    return alive


def started(order: Ordered, out: Path) -> subprocess.Popen[str]:
    """Return a run of the command with two processes, its first epoch done."""
    plan_file = out.with_suffix(".json")
    write_document(plan_file, order.plan)
    command = [sys.executable, "-c", "import planner.cli; planner.cli.main()", "execute", str(plan_file)]
    command += ["--out", str(out), "--model", order.card, "--epochs", "60", "--jobs", "2"]
    process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, start_new_session=True)
    while not list((out / "work").glob("00-*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert len(group(process.pid)) > 2
    return process


def nobody_left(leader: int) -> bool:
    """Wait for a process group to be empty."""
    deadline = time.monotonic() + 10
    while group(leader) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not group(leader)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nobody_is_left_when_the_command_ends(order: Ordered, tmp_path: Path) -> None:
    """Ctrl-C, which all processes get, is one line; SIGKILL of the command alone leaves no other behind."""
    process = started(order, tmp_path / "stopped")
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert said == "Stopped. What was finished is kept: the same command goes on from there.\n"
    assert nobody_left(process.pid)
    process = started(order, tmp_path / "killed")
    process.kill()
    process.communicate()
    assert nobody_left(process.pid)


def test_an_epoch_that_is_always_lost_ends_the_run(order: Ordered, tmp_path: Path) -> None:
    """Lost with its worker, an epoch is begun again, from the same state, but not for ever."""

    class Lossy:
        width, device = 1, "cpu"
        begun = 0

        def __call__(self, trainings: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
            def submit(i: int, state: bytes | None) -> "Future[bytes]":
                self.begun += state is None
                future: Future[bytes] = Future()
                future.cancel()
                future.set_running_or_notify_cancel()
                return future

            train_by_epochs(trainings[:1], states[:1], on_epoch, submit)

    lossy = Lossy()
    with pytest.raises(PlannerError, match=r"training 'a': whoever ran it died, 4 times.*goes on"):
        carry_out(order, tmp_path, lossy)
    assert lossy.begun == 4


def test_who_trains_is_decided_once() -> None:
    """One job is this process, more are processes; what does not go together is refused."""
    with make_trainer(jobs=1) as means:
        assert means == InlineTrainer()
    with make_trainer(jobs=3) as means:
        assert means == ParallelTrainer(ProcessExecutor(3))
    with make_trainer() as means:
        assert means.width == usable_cores()
    for refused, match in (
        ({"scheduler": "tcp://x:1", "jobs": 2}, "give it without --jobs"),
        ({"tls": tls_of(Path(__file__), Path(__file__), Path(__file__))}, "are for --scheduler"),
        ({"device": "cuda:99"}, "device 'cuda:99': must be there"),
        ({"device": "tpu"}, "must be cpu, cuda or cuda:n"),
    ):
        with pytest.raises(InputError, match=match), make_trainer(**refused):
            pass


def test_tls_needs_all_three_files(tmp_path: Path) -> None:
    """One of three is refused, naming those that are missing; so is a file that is not there."""
    assert tls_of(None, None, None) is None
    with pytest.raises(InputError, match="got none for --tls-cert, --tls-key"):
        tls_of(Path(__file__), None, None)
    with pytest.raises(InputError, match=r"--tls-ca .*ca\.pem: must be a PEM file"):
        tls_of(tmp_path / "ca.pem", None, None)
