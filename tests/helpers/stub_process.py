"""A stub worker in a process of its own, which can be killed and stopped: `python -m tests.helpers.stub_process`.

Arguments: name, number of features, address to listen on. Its first line is that of a worker, the address; then it
prints "computing" for each image whose first pixel is 255, and answers none of them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from planner.runtime.device.addresses import resolve
from planner.runtime.device.worker import Served, Worker
from tests.helpers.common import PATIENCE_S, ROOT
from tests.helpers.stub_fleet import BUNDLE, SHAPE, TOKEN, about, stub_features

SLOW = 255


class StubProcess:
    """Worker in a process of its own."""

    def __init__(self, name: str, num_features: int, listen: str = "127.0.0.1:0") -> None:
        command = [sys.executable, "-m", "tests.helpers.stub_process", name, str(num_features), listen]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.address = self._line().removeprefix("listening on ")

    def wait_until_it_computes(self) -> None:
        """Wait until a slow image is being computed."""
        assert self._line() == "computing"

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
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def stub_process(name: str, num_features: int, listen: str = "127.0.0.1:0") -> Iterator[StubProcess]:
    """Run a stub worker in a process of its own."""
    process = StubProcess(name, num_features, listen)
    try:
        yield process
    finally:
        process.kill()


def main(name: str, count: str, listen: str) -> None:
    """Run the worker until it is killed or its parent is gone."""
    quick = stub_features(int(count))

    def features(image: memoryview) -> bytes:
        if image[0] == SLOW:
            print("computing", flush=True)
            time.sleep(PATIENCE_S)
        return quick(image)

    size = SHAPE[0] * SHAPE[1] * SHAPE[2]
    served = Served(bytes.fromhex(BUNDLE), TOKEN, about(name, int(count)), size, features)
    worker = Worker(served, resolve(listen), None, lambda line: None)
    print(f"listening on {worker.endpoint}", flush=True)
    parent = os.getppid()
    signal.signal(signal.SIGALRM, lambda *_: worker.stop() if os.getppid() != parent else None)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
