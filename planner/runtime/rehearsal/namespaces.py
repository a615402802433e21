"""Network namespaces for the workers of a rehearsal: links of the planned bandwidth, and shared media.

A worker without a shared medium has a pair of virtual interfaces of its own; a token bucket filter (tbf) at either end
limits what is sent there. For each shared medium, a further namespace has a bridge between this one and the namespaces
of its workers: all images pass one filter on their way in, and all features one on their way out.

The filters count the headers of packets, which a plan does not: some 4 % of a link. A message that fits into a bucket
passes at once. Latency is not made here, since few kernels have netem: the workers hold it.

Interfaces lie in namespaces that go with their last process, so nothing stays behind however a rehearsal ends.
"""

import math
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from planner.errors import InputError, PlannerError
from planner.rules.links import Transfer
from planner.runtime.rehearsal import boot
from planner.runtime.rehearsal.paths import DevicePath, paths_of
from planner.runtime.rehearsal.processes import WorkerProcess
from planner.schema import Fleet, Plan, Profile

_PROGRAMS = ("ip", "tc", "nsenter")
# The smallest bucket holds a packet; a faster link needs one for the time between two of the kernel's wake-ups.
_MIN_BUCKET_BYTES = 1600
_BUCKET_S = 1e-4
_QUEUE_BYTES = 64 * 2**20


class Namespaces:
    """Network of a rehearsal, made of namespaces."""

    def __init__(self, fleet: Fleet, profile: Profile, plan: Plan) -> None:
        """Plan the network; nothing is made before a worker is plugged in.

        Raises:
            InputError: If this process may not make namespaces, or a path has several shared media.
        """
        refuse_unless_possible()
        self._paths = paths_of(fleet, profile, plan)
        self._numbers = {name: number for number, name in enumerate(self._paths, start=1)}
        if len(self._paths) > 250:
            raise InputError(f"must have at most 250 devices, got {len(self._paths)}.", field="namespaces")
        for name, path in self._paths.items():
            if len(path.media) > 1:
                raise InputError(
                    f"paths must pass at most one shared medium, that to {name!r} passes several.", field="namespaces"
                )
        self._bridges: dict[int, WorkerProcess] = {}

    def __enter__(self) -> "Namespaces":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bridge in self._bridges.values():
            bridge.kill()

    def host(self, device: str) -> str:
        """Return the address that a device's worker listens on."""
        media, number = self._paths[device].media, self._numbers[device]
        return f"{_medium_subnet(min(media))}.{number + 1}" if media else f"{_subnet(number)}.2"

    def plug(self, device: str, pid: int) -> None:
        """Join the network namespace of a process to the network."""
        path, number = self._paths[device], self._numbers[device]
        near, far = f"rh{os.getpid()}.{number}", f"rw{os.getpid()}.{number}"
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", str(pid))
        if not path.media:
            _run("ip", "address", "add", f"{_subnet(number)}.1/30", "dev", near)
            _run("ip", "link", "set", near, "up")
            _limit(path.send, near)
            _limit(path.returned, far, pid)
            mask = 30
        else:
            bridge = self._bridge(path)
            _run("ip", "link", "set", near, "netns", str(bridge.pid))
            _run("ip", "link", "set", near, "master", "medium", "up", pid=bridge.pid)
            mask = 24
        _run("ip", "address", "add", f"{self.host(device)}/{mask}", "dev", far, pid=pid)
        _run("ip", "link", "set", far, "up", pid=pid)

    def _bridge(self, path: DevicePath) -> WorkerProcess:
        """Return the process whose namespace is a medium, with its filters; made when it is first used."""
        (medium,) = path.media
        if medium not in self._bridges:
            near, far = f"rm{os.getpid()}.{medium}", f"rn{os.getpid()}.{medium}"
            holder = WorkerProcess(Path(boot.NOTHING), (), Path(os.devnull), "own")
            self._bridges[medium] = holder
            if holder.line() != boot.IN_NAMESPACE:
                raise PlannerError("a shared medium must get a network namespace, it does not.")
            holder.go_on()
            _run("ip", "link", "add", "medium", "type", "bridge", pid=holder.pid)
            _run("ip", "link", "set", "medium", "up", pid=holder.pid)
            _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", str(holder.pid))
            _run("ip", "address", "add", f"{_medium_subnet(medium)}.1/24", "dev", near)
            _run("ip", "link", "set", near, "up")
            _run("ip", "link", "set", far, "master", "medium", "up", pid=holder.pid)
            _limit(path.send, near)
            _limit(path.returned, far, holder.pid)
        return self._bridges[medium]


def refuse_unless_possible() -> None:
    """Refuse namespaces where this process cannot make them.

    Raises:
        InputError: If it is not root on Linux, or a program is missing.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise InputError(
            "network namespaces must be made as root on Linux; leave it out, and links are held.", field="namespaces"
        )
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            raise InputError(
                f"network namespaces need the program {program}, which is not installed (iproute2, util-linux).",
                field="namespaces",
            )


def _limit(transfer: Transfer, interface: str, pid: int | None = None) -> None:
    """Limit what an interface sends to the bandwidth of a path; the aggregator's path to itself has no limit."""
    bytes_us = transfer.alone_us - transfer.latency_us
    if bytes_us == 0:
        return
    bits_per_s = math.ceil(8 * transfer.num_bytes * Fraction(10**6) / bytes_us)
    bucket = max(_MIN_BUCKET_BYTES, math.ceil(bits_per_s / 8 * _BUCKET_S))
    rate = ("rate", f"{bits_per_s}bit", "burst", str(bucket), "limit", str(_QUEUE_BYTES))
    _run("tc", "qdisc", "add", "dev", interface, "root", "tbf", *rate, pid=pid)


def _subnet(number: int) -> str:
    return f"10.{_octet()}.{number}"


def _medium_subnet(medium: int) -> str:
    return f"10.{_octet() + 64}.{medium}"


def _octet() -> int:
    # Two rehearsals at the same time seldom have the same.
    return 64 + os.getpid() % 64


def _run(*command: str, pid: int | None = None) -> None:
    """Run a program, in the network namespace of a process where one is given."""
    enter = [] if pid is None else ["nsenter", "--net", f"--target={pid}"]
    done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlannerError(f"no network namespaces: {' '.join(command)} failed ({done.stderr.strip()[:200]}).")
