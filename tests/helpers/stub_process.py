"""A stub worker in a process of its own, which can be killed and stopped: `python -m tests.helpers.stub_process`.

Arguments: name, number of features, address to listen on, and a certificate, whose key lies beside it, if it is to
speak TLS. Its first line is that of a worker, the address; then it prints "computing" for each image whose first pixel
is 255, which it computes until it is told to go on by a line on its standard input.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from planner.runtime.device.addresses import resolve
from planner.runtime.device.worker import Served, Worker, server_context
from tests.helpers.common import ROOT
from tests.helpers.stub_fleet import BUNDLE, SHAPE, TOKEN, about, stub_features

SLOW = 255
# Run as a file: its package needs torch, and a stub is to start quickly.
_BOOT = ROOT / "planner" / "runtime" / "rehearsal" / "boot.py"


class StubProcess:
    """Worker in a process of its own."""

    def __init__(
        self,
        name: str,
        num_features: int,
        listen: str = "127.0.0.1:0",
        certificate: Path | None = None,
        plug: Callable[[int], None] | None = None,
    ) -> None:
        """Start it, and wait until it listens.

        Args:
            name: Name of the device.
            num_features: Number of features that it returns.
            listen: Address to listen on.
            certificate: Its certificate, with the key beside it; without one it speaks plainly.
            plug: Given the process in a network namespace of its own, connects it; this process's namespace unless
                given.
        """
        command = [sys.executable, "-m", "tests.helpers.stub_process", name, str(num_features), listen]
        command += [] if certificate is None else [str(certificate)]
        if plug is not None:
            command = [sys.executable, "-I", str(_BOOT), str(os.getpid()), "own", *command]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        if plug is not None:
            assert self._line() == "in a namespace"
            plug(self._process.pid)
            self.go_on()
        self.address = self._line().removeprefix("listening on ")

    def wait_until_it_computes(self) -> None:
        """Wait until a slow image is being computed."""
        assert self._line() == "computing"

    def go_on(self) -> None:
        """End the computing of a slow image."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send_signal(self, number: int) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, even a stopped one."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def stub_process(
    name: str,
    num_features: int,
    listen: str = "127.0.0.1:0",
    certificate: Path | None = None,
    plug: Callable[[int], None] | None = None,
) -> Iterator[StubProcess]:
    """Run a stub worker in a process of its own; arguments are those of `StubProcess`."""
    process = StubProcess(name, num_features, listen, certificate, plug)
    try:
        yield process
    finally:
        process.kill()


def main(name: str, count: str, listen: str, *certificates: str) -> None:
    """Run the worker until it is killed or its parent is gone."""
    quick = stub_features(int(count))

    def features(image: memoryview) -> bytes:
        if image[0] == SLOW:
            print("computing", flush=True)
            sys.stdin.readline()
        return quick(image)

    size = SHAPE[0] * SHAPE[1] * SHAPE[2]
    served = Served(bytes.fromhex(BUNDLE), TOKEN, about(name, int(count)), size, features)
    contexts = [server_context(Path(path), Path(path).with_suffix(".key")) for path in certificates]
    worker = Worker(served, resolve(listen), contexts[0] if contexts else None, lambda line: None)
    print(f"listening on {worker.endpoint}", flush=True)
    parent = os.getppid()
    signal.signal(signal.SIGALRM, lambda *_: worker.stop() if os.getppid() != parent else None)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
