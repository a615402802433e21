"""Deployment over ssh: a device's folder is copied to its board, tested there, and its worker started.

The user's own ssh does it, with their keys and their configuration, in one connection for each board. Nothing of a name
that a user or a file gave is in a command line of the board's shell but the address to listen on, of plain characters.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from planner.errors import InputError, PlannerError, setting
from planner.runtime.deployment import Deployment, DeviceFolder
from planner.schema import did_you_mean
from planner.units import visible

_SCRIPT = "install.py"
_LISTEN = re.compile(r"[A-Za-z0-9.:_\[\]%-]+:[0-9]{1,5}")
# user@host or ssh://user@host:port, as ssh takes it; what begins with a dash would be an option.
_DESTINATION = re.compile(r"[^\s\x00-\x1f-][^\s\x00-\x1f]*")
_CONNECT_SECONDS = 15
_NAME_DIGITS = 16
_SSH_FAILED, _NOT_FOUND = 255, 127
_NO_SSH = " (a microcontroller has no ssh: README.md in its folder tells how to build it into a firmware)"


@dataclass(frozen=True)
class Target:
    """Board of a device: where ssh finds it."""

    device: DeviceFolder
    destination: str


@dataclass(frozen=True)
class Started:
    """Worker that was started on a board: its address there, and the folder under `bundles` that it runs."""

    listening: str
    folder: str


def parse_targets(texts: Sequence[str], deployment: Deployment) -> list[Target]:
    """Return the boards named as NAME=DESTINATION, several of them separated by commas.

    Raises:
        InputError: If one is malformed, no device of the deployment, given twice, or exported for a rehearsal alone.
    """
    by_name = {device.manifest.device: device for device in deployment.devices}
    targets: list[Target] = []
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        name, _, destination = text.partition("=")
        if not name or not _DESTINATION.fullmatch(destination):
            raise InputError(f"{setting('to')} must be NAME=USER@HOST, such as pi-1=pi@10.0.0.3, got {text[:100]!r}.")
        if name not in by_name:
            hint = did_you_mean(name, by_name)
            raise InputError(f"{setting('to')} must name a device of the deployment, got {name[:100]!r}{hint or '.'}")
        if by_name[name].manifest.stand_in:
            raise InputError(
                f"{name}: was exported for a rehearsal: ONNX Runtime, which stands in there, does not run on the board."
            )
        for other in targets:
            if name == other.device.manifest.device or destination == other.destination:
                raise InputError(f"{setting('to')} must name each device and each board once, got {text[:100]!r} too.")
        targets.append(Target(by_name[name], destination))
    return targets


def deploy(target: Target, listen: str) -> Started:
    """Copy a device's folder to its board, test it there, and start its worker in place of the one before.

    Args:
        target: Device and board.
        listen: Address that the worker is to listen on, host:port.

    Raises:
        InputError: If the address is malformed, or ssh is not installed.
        PlannerError: If the board cannot be reached, lacks what the worker needs, or the self-test fails there.
    """
    check_listen(listen)
    paths = sorted(target.device.path.iterdir())
    files = {path.name: path.read_bytes() for path in paths}
    name = _content_name(files)
    folder = f".incoming-{name}"
    files[_SCRIPT] = _script()
    # A worker in C that was built here for the board.
    programs = {f"{folder}/{path.name}" for path in paths if os.access(path, os.X_OK)}
    command = f"tar -xf - && exec $p {folder}/{_SCRIPT} install {name} {listen}"
    return _run(target, command, _tar({f"{folder}/{file}": content for file, content in files.items()}, programs))


def roll_back_to_previous(target: Target, listen: str) -> Started:
    """Let the board's worker run the folder before the current one.

    Raises:
        InputError: As for `deploy`.
        PlannerError: As for `deploy`; also if there is no earlier folder.
    """
    check_listen(listen)
    return _run(target, f"exec $p - rollback {listen}", _script())


def check_listen(listen: str) -> None:
    """Refuse an address that is not host:port, of plain characters.

    Raises:
        InputError: If it is not.
    """
    if not _LISTEN.fullmatch(listen):
        raise InputError(f"{setting('listen')} must be HOST:PORT, such as 0.0.0.0:7447, got {listen[:100]!r}.")


def _content_name(files: dict[str, bytes]) -> str:
    """Return the name of a folder under `bundles`: of all its content, secrets included, which differ by export."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:_NAME_DIGITS]


def _script() -> bytes:
    return Path(__file__).with_name("board_script.py").read_bytes()


def _tar(files: dict[str, bytes], programs: Set[str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o700 if name in programs else 0o600
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def _run(target: Target, command: str, stdin: bytes) -> Started:
    """Run a command in the board's folder `bundles`; in it, $p is the Python to use."""
    # In plain sh, whatever the user's shell there; no part has a single quote.
    prepare = "umask 077; mkdir -p bundles && cd bundles && p=python3 && if test -x venv/bin/python3"
    remote = f"sh -c '{prepare}; then p=venv/bin/python3; fi && {command}'"
    ssh = ["ssh", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", "--", target.destination, remote]
    try:
        result = subprocess.run(ssh, input=stdin, capture_output=True)
    except FileNotFoundError:
        raise InputError("Deploying needs ssh, which is not installed.") from None
    return _started(target, result)


def _started(target: Target, result: "subprocess.CompletedProcess[bytes]") -> Started:
    """Return what the board's script printed.

    Raises:
        PlannerError: If it did not come to that.
    """
    where = f"{target.device.manifest.device} ({target.destination})"
    stderr = _last_line(result.stderr)
    if result.returncode == _SSH_FAILED:
        hint = _NO_SSH if target.device.manifest.engine == "c" else ""
        raise PlannerError(f"{where}: ssh must reach the board, got: {stderr}; try: ssh {target.destination}{hint}.")
    if result.returncode == _NOT_FOUND:
        raise PlannerError(f"{where}: the board must have python3 and tar, got: {stderr}; install them there.")
    try:
        answer = json.loads(_last_line(result.stdout))
        if "error" in answer:
            raise PlannerError(f"{where}: {visible(str(answer['error'])[:400])}.")
        return Started(str(answer["listening"]), str(answer["name"]))
    except (ValueError, KeyError, TypeError):
        raise PlannerError(f"{where}: the board's script ended with {result.returncode}: {stderr}.") from None


def _last_line(content: bytes) -> str:
    lines = content.decode(errors="replace").strip().splitlines() or ["nothing was said"]
    return visible(lines[-1][:300]).rstrip(".")
