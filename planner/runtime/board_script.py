"""Installs a device folder on a board and starts its worker; `planner deploy` copies and runs this file there.

Needs Python 3.9 or later. It runs in the folder `bundles`, which holds:
    HASH/               a device folder; the current one and the one before are kept
    current, previous   links to them
    venv/               a virtual environment with numpy and onnxruntime, if python3 itself lacks them
    worker.pid, worker.out, worker.log   the running worker: its process, its address, its log

Prints one line of JSON: the address that the worker listens on, or what is wrong.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

CURRENT, PREVIOUS = Path("current"), Path("previous")
PID, OUT, LOG = Path("worker.pid"), Path("worker.out"), Path("worker.log")
START_SECONDS, STOP_SECONDS = 120.0, 10.0
_NAME = re.compile(r"[0-9a-f]{16}")
_WORKER = re.compile(rb"/worker(\.pyz)?\0")


class BoardError(Exception):
    """A problem that the user can solve, described in one sentence."""


def main(arguments: list[str]) -> int:
    """Run `install HASH LISTEN` or `rollback LISTEN`, and return the exit code."""
    try:
        check_python()
        listening = install(*arguments[1:]) if arguments[0] == "install" else roll_back(*arguments[1:])
    except BoardError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps({"listening": listening, "name": target_of(CURRENT)}))
    return 0


def check_python() -> None:
    """Refuse a Python that cannot run this script."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 9):
        raise BoardError(f"python3 must be 3.9 or later, got {version}")


def check_packages(folder: Path) -> None:
    """Refuse a Python that cannot run a folder's worker, if that is one of Python."""
    if not (folder / "worker.pyz").exists():
        return
    for module in ("numpy", "onnxruntime"):
        # In a process of its own: a package for another processor may end it.
        tried = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
        if tried.returncode:
            if struct.calcsize("P") == 4:
                raise BoardError("its Python is of 32 bits, for which there is no onnxruntime; install a 64-bit system")
            raise BoardError(
                f"{module} cannot be imported; type there: python3 -m venv ~/bundles/venv && "
                "~/bundles/venv/bin/pip install numpy onnxruntime"
            )


def install(name: str, listen: str) -> str:
    """Make a copied device folder the current one, if its self-test passes, and return the worker's address."""
    incoming = Path(f".incoming-{name}")
    try:
        check_packages(incoming)
        tested = subprocess.run(["sh", str(incoming / "run.sh"), "--self-test"], capture_output=True, text=True)
        if tested.returncode:
            raise BoardError(f"the self-test failed ({last_line(tested.stderr)})")
        Path(__file__).unlink()
        # The same folder may run already.
        if not Path(name).exists():
            incoming.rename(name)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    listening = switch(name, listen)
    kept = {target_of(CURRENT), target_of(PREVIOUS)}
    for path in Path().iterdir():
        if _NAME.fullmatch(path.name) and path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    return listening


def roll_back(listen: str) -> str:
    """Make the folder before the current one, and return the worker's address."""
    previous = target_of(PREVIOUS)
    if previous is None or not Path(previous).is_dir():
        raise BoardError("there is no earlier bundle to go back to")
    check_packages(Path(previous))
    return switch(previous, listen)


def switch(name: str, listen: str) -> str:
    """Let the worker run another folder, and return its address; if it does not start, the former one runs again."""
    before, address = (target_of(CURRENT), target_of(PREVIOUS)), address_of_worker()
    stop()
    point(CURRENT, name)
    if before[0] != name:
        point(PREVIOUS, before[0])
    try:
        return start(listen)
    except BoardError:
        point(CURRENT, before[0])
        point(PREVIOUS, before[1])
        if before[0] is not None and address:
            start(address)
        raise


def start(listen: str) -> str:
    """Start the current folder's worker, and return its address as soon as it listens."""
    with OUT.open("wb") as out, LOG.open("ab") as log:
        command = ["sh", str(CURRENT / "run.sh"), "--listen", listen]
        # A session of its own: it goes on when the one over ssh ends.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True)
    PID.write_text(f"{process.pid}\n", encoding="utf-8")
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if address := address_of_worker():
            return address
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    PID.unlink()
    raise BoardError(f"the worker did not start ({last_line(LOG.read_text(encoding='utf-8', errors='replace'))})")


def address_of_worker() -> str:
    """Return the address that the worker said it listens on; nothing if it did not."""
    if not OUT.exists():
        return ""
    line, newline, _ = OUT.read_text(encoding="utf-8", errors="replace").partition("\n")
    return line.rpartition(" ")[2] if newline else ""


def stop() -> None:
    """End the worker that runs, if one does."""
    try:
        pid = int(PID.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    until = time.monotonic() + STOP_SECONDS
    while is_worker(pid):
        try:
            os.kill(pid, signal.SIGTERM if time.monotonic() < until else signal.SIGKILL)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    PID.unlink()


def is_worker(pid: int) -> bool:
    """Return whether a process is a worker: after a restart of the board, another one may have its number."""
    try:
        return _WORKER.search(Path(f"/proc/{pid}/cmdline").read_bytes()) is not None
    except OSError:
        return False


def target_of(link: Path) -> str | None:
    """Return the folder that a link points to, if there is one."""
    return os.readlink(link) if link.is_symlink() else None


def point(link: Path, target: str | None) -> None:
    """Let a link point to a folder, at no moment to none; remove it where there is no folder."""
    if target is None:
        link.unlink(missing_ok=True)
        return
    fresh = link.with_name(f".{link.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def last_line(text: str) -> str:
    """Return the last line of a log, shortened."""
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
