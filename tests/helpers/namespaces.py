"""A cable to a process in a network namespace of its own, which can be pulled out and put back in."""

import os
import shutil
import subprocess
import sys


def why_no_namespaces() -> str:
    """Return why there can be no network namespaces here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces are made by root on Linux"
    for program in ("ip", "tc", "nsenter"):
        if shutil.which(program) is None:
            return f"no {program} on the PATH"
    link = ["ip", "link", "add", "planner0", "type", "veth", "peer", "name", "planner1"]
    made = subprocess.run(link, capture_output=True, text=True, check=False)
    subprocess.run(["ip", "link", "del", "planner0"], capture_output=True, check=False)
    return made.stderr.strip()


class Cable:
    """Pair of virtual interfaces between this process and one in a namespace, with which they go."""

    def __init__(self) -> None:
        """Choose addresses; nothing is made yet."""
        self._subnet = f"10.{192 + os.getpid() % 64}.7"
        self._near, self._far = f"cn{os.getpid()}", f"cf{os.getpid()}"
        self._enter: list[str] = []

    @property
    def host(self) -> str:
        """Address at the far end."""
        return f"{self._subnet}.2"

    def connect(self, pid: int) -> None:
        """Lay the cable to a process."""
        self._enter = ["nsenter", "--net", f"--target={pid}"]
        _run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", str(pid))
        _run("ip", "address", "add", f"{self._subnet}.1/30", "dev", self._near)
        _run("ip", "link", "set", self._near, "up")
        _run(*self._enter, "ip", "address", "add", f"{self.host}/30", "dev", self._far)
        self.put_in()

    def pull_out(self) -> None:
        """Take the link of the far end down: neither side is told, packets are lost."""
        _run(*self._enter, "ip", "link", "set", self._far, "down")

    def put_in(self) -> None:
        """Take the link up again."""
        _run(*self._enter, "ip", "link", "set", self._far, "up")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
