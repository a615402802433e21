"""Training on a Dask cluster: the same bits as in one process, even if workers die."""

import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from planner.errors import InputError, PlannerError
from planner.executor.trainers import ParallelTrainer
from planner.workers import DaskExecutor, cluster, connect, map_unordered, watch
from tests.helpers.small_run import SmallRun, contents, execute_watched, make_small_run, metrics_without_seconds

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three small sub-models."""
    return make_small_run(tmp_path_factory.mktemp("order"))


def test_workers_die_and_the_bundle_is_that_of_one_process(run: SmallRun, tmp_path: Path) -> None:
    """One of two workers is killed, later both: the bundle is bit for bit that of one process."""
    execute_watched(run, tmp_path / "here")
    arguments = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(**arguments, silence_logs=50) as local,
        connect(local.scheduler_address, None, ("torch",)) as workers,
    ):
        trainer = ParallelTrainer(workers)
        assert trainer.num_workers == 2

        def kill(seen: int) -> None:
            pids = list(workers.client.run(os.getpid, on_error="ignore").values()) if seen in (2, 4) else []
            for pid in pids[: 1 if seen == 2 else 2]:
                os.kill(pid, signal.SIGKILL)

        execute_watched(run, tmp_path / "cluster", trainer, kill)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")
    assert metrics_without_seconds(tmp_path / "cluster") == metrics_without_seconds(tmp_path / "here")


def test_failures_of_a_cluster_are_one_sentence(run: SmallRun, tmp_path: Path) -> None:
    """An epoch in which too many workers died, and a cluster that is gone: the message says where a rerun goes on."""
    died = distributed.KilledWorker("task", SimpleNamespace(address="tcp://x:2"), 3)
    client = _Client(died)
    with pytest.raises(PlannerError, match=r"tcp://x:1: 4 workers died in the same call, the last at tcp://x:2.*on"):
        execute_watched(run, tmp_path, ParallelTrainer(DaskExecutor(client, "tcp://x:1")))
    client.workers = False
    with pytest.raises(PlannerError, match=r"tcp://x:1: the cluster must have a worker, got none for.*goes on from"):
        execute_watched(run, tmp_path, ParallelTrainer(DaskExecutor(client, "tcp://x:1")))


class _Client:
    """A client whose every task fails."""

    status = "running"

    def __init__(self, error: Exception) -> None:
        self.error, self.workers = error, True

    def nthreads(self) -> dict[str, int]:
        return {"tcp://x:2": 1}

    def wait_for_workers(self, count: int, timeout: float) -> None:
        if not self.workers:
            raise TimeoutError("0 of 1")

    def scatter(self, value: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(status="finished", release=lambda: None)

    def submit(self, *call: object, pure: bool) -> SimpleNamespace:
        return SimpleNamespace(status="error", key="task", exception=lambda timeout: self.error)


def test_another_version_is_refused() -> None:
    """A worker with another torch would give other bits: it is named, with both versions."""
    with pytest.raises(InputError, match=r"worker tcp://x:2: versions must be {'torch': '2'}, got {'torch': '1'}"):
        cluster._check_workers({"tcp://x:2": {"torch": "1"}}, {"torch": "2"})


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A free port and a malformed address are refused, with the address."""
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"tcp://127.0.0.1:{port}", "nowhere://x", "foo"):
        with (
            pytest.raises(InputError, match=f"`scheduler={address}`: a Dask scheduler must answer there within"),
            connect(address, None),
        ):
            pass


def test_what_answers_without_being_a_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that says nothing is given up after the time for a connection, however long it would stay silent."""
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(InputError, match=f"`scheduler={address}`: a Dask scheduler must answer there within"),
            connect(address, None),
        ):
            pass


def test_a_worker_without_the_planner_is_named() -> None:
    """What is asked needs no planner where it is answered; who lacks it is told what to install."""
    asked = cluster._VERSIONS.format(names=["numpy", "no-such-package"])
    code = f"print({asked}); import sys; assert 'planner' not in sys.modules"
    answer = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer.strip() == str({"numpy": version("numpy")})
    with pytest.raises(InputError, match=r"worker tcp://x:2: must have vit-planner 0\.1\.0 installed, got none"):
        cluster._check_workers({"tcp://x:2": {"torch": "2"}}, {"vit-planner": "0.1.0", "torch": "2"})


class _Silent(_Client):
    """A client that never reports on its first tasks, which no worker processes, and answers the others."""

    def __init__(self, silent: int) -> None:
        super().__init__(ValueError())
        self.silent, self.sent = silent, 0

    def scatter(self, value: object, **options: object) -> SimpleNamespace:
        self.sent += 1
        return super().scatter(value, **options)

    def processing(self) -> dict[str, list[str]]:
        return {"tcp://x:2": ["somebody else's"]}

    def submit(self, *call: object, pure: bool) -> SimpleNamespace:
        self.silent -= 1
        status = "finished" if self.silent < 0 else "pending"
        return SimpleNamespace(status=status, key="ours", result=lambda timeout: 7, cancel=lambda: None)


def test_calls_that_no_worker_processes_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls whose loss the cluster does not report are sent again, with the shared data; not for ever."""
    monkeypatch.setattr(watch, "_QUERY_S", 0.05)
    client = _Silent(2)
    assert sorted(map_unordered(DaskExecutor(client, "tcp://x:1"), max, 1, [(2,), (3,)], "kept")) == [(0, 7), (1, 7)]
    assert client.sent == 2
    with pytest.raises(PlannerError, match=r"call 0: whoever ran it died, 4 times"):
        list(map_unordered(DaskExecutor(_Silent(99), "tcp://x:1"), max, 1, [(2,)], "kept"))
