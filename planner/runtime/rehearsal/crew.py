"""Workers of a rehearsal: one process for each device, with what it holds and where it notes its times."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from planner.errors import PlannerError
from planner.runtime.c.build import build_worker
from planner.runtime.deployment import WORKER, Deployment, DeviceFolder
from planner.runtime.rehearsal import boot
from planner.runtime.rehearsal.predicted import Expectation
from planner.runtime.rehearsal.processes import WorkerProcess


class Network(Protocol):
    """Network between the workers and this process."""

    def host(self, device: str) -> str:
        """Return the address that a device's worker listens on."""

    def plug(self, device: str, pid: int) -> None:
        """Join the network namespace of a process to the network."""


class Crew:
    """Worker processes of a deployment, ended together."""

    def __init__(
        self, deployment: Deployment, expected: Mapping[str, Expectation], work: Path, network: Network | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            deployment: The deployment whose device folders the workers read.
            expected: What each worker holds.
            work: Folder for logs and marks.
            network: Network of namespaces; without one all workers listen on loopback.
        """
        self.addresses: dict[str, str] = {}
        self._folders: dict[str, DeviceFolder] = {d.manifest.device: d for d in deployment.devices}
        self._expected, self._work, self._network = expected, work, network
        self._programs: dict[str, Path] = {}
        self._running: dict[str, WorkerProcess] = {}
        self._marks: dict[str, list[Path]] = {name: [] for name in self._folders}
        self._peaks: dict[str, int] = {}

    def __enter__(self) -> "Crew":
        try:
            for name, folder in self._folders.items():
                is_c = folder.manifest.engine == "c"
                self._programs[name] = build_worker(folder.path) if is_c else folder.path / WORKER
                self.start(name)
            for name, process in self._running.items():
                address = process.address()
                if address is None:
                    raise PlannerError(f"the worker of {name!r} must listen within two minutes, it does not.")
                self.addresses[name] = address
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self, name: str) -> None:
        """Start the worker of a device, at the address that it had before."""
        index = len(self._marks[name])
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]
        position = list(self._folders).index(name)
        marks = self._work / f"{position:02d}-{plain}-{index}.marks"
        self._marks[name].append(marks)
        network = self._network
        listen = self.addresses.get(name) or f"{network.host(name) if network else '127.0.0.1'}:0"
        folder = self._folders[name].path
        arguments = [str(folder), "--listen", listen, "--marks", str(marks)]
        if hold := self._expected[name].hold:
            arguments += ["--hold", ",".join(f"{step}={us}" for step, us in hold.items())]
        log = self._work / f"{position:02d}-{plain}.log"
        process = WorkerProcess(self._programs[name], arguments, log, "own" if network else "shared")
        self._running[name] = process
        if network is not None:
            if process.line() != boot.IN_NAMESPACE:
                raise PlannerError(f"the worker of {name!r} must get a network namespace, it does not.")
            network.plug(name, process.pid)
            process.go_on()

    def kill(self, name: str) -> None:
        """End the worker of a device at once."""
        process = self._running.pop(name)
        process.kill()
        self._note_peak(name, process)

    def listening_since(self, name: str) -> float | None:
        """Return the moment since which a started worker listens, by `time.monotonic`; None while it does not."""
        process = self._running[name]
        if process.listening_since is None:
            process.address(wait_s=0)
        return process.listening_since

    def note_peaks(self) -> None:
        """Remember the peak memory of all running workers so far."""
        for name, process in self._running.items():
            process.note_peak()
            self._note_peak(name, process)

    @property
    def pids(self) -> dict[str, int]:
        """Process number of each running worker."""
        return {name: process.pid for name, process in self._running.items()}

    def peak_bytes(self, name: str) -> int | None:
        """Return the peak memory of a device's worker [bytes], the largest of all its processes."""
        return self._peaks.get(name)

    def marks(self, name: str) -> list[Path]:
        """Return the files in which a device's workers noted their times."""
        return self._marks[name]

    def _note_peak(self, name: str, process: WorkerProcess) -> None:
        if process.peak_bytes is not None:
            self._peaks[name] = max(self._peaks.get(name, 0), process.peak_bytes)

    def _end(self) -> None:
        for name in list(self._running):
            self.kill(name)
