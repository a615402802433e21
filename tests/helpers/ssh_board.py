"""A board that ssh reaches: an sshd of the test's own, without a port, that logs in to a folder in place of a home."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Board:
    """Board: its home, and a folder with the `ssh` that reaches it under any name but `absent`."""

    home: Path
    bin: Path

    @property
    def bundles(self) -> Path:
        """Folder of device folders on the board."""
        return self.home / "bundles"

    def give_python(self, *lines: str) -> None:
        """Put a Python that has numpy and onnxruntime where a virtual environment is looked for, after lines of sh."""
        python = self.bundles / "venv" / "bin" / "python3"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("\n".join(["#!/bin/sh", *lines, f'exec {sys.executable} "$@"', ""]))
        python.chmod(0o755)

    def worker(self) -> int:
        """Return the process of the worker that runs."""
        return int((self.bundles / "worker.pid").read_text())

    def folder_of(self, link: str) -> str:
        """Return the folder that a link of the board points to."""
        return str((self.bundles / link).readlink())


def is_running(pid: int) -> bool:
    """Return whether a process runs: not ended, and not waiting for a parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def ssh_board(folder: Path) -> Iterator[Board]:
    """Return a board without Python whose worker, if one is left, is ended; skip the test without an sshd."""
    if SSHD is None or shutil.which("ssh") is None:
        if os.environ.get("CI"):
            pytest.fail("sshd is not installed")
        pytest.skip("sshd is not installed")
    if os.getuid() == 0:
        # sshd wants it; only a service makes it.
        Path("/run/sshd").mkdir(exist_ok=True)
    home, bin_folder = folder / "home", folder / "bin"
    home.mkdir()
    bin_folder.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    server = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "PidFile": "none",
        "ForceCommand": f'cd {home} && exec sh -c "$SSH_ORIGINAL_COMMAND"',
    }
    client = {
        "IdentityFile": folder / "user",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "no",
        "LogLevel": "ERROR",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in server.items()))
    lines = "".join(f"  {key} {value}\n" for key, value in client.items())
    (folder / "ssh_config").write_text(
        f"Host absent\n  ProxyCommand false\nHost *\n{lines}  ProxyCommand {SSHD} -i -f {folder / 'sshd_config'}\n"
    )
    (bin_folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"\n')
    (bin_folder / "ssh").chmod(0o755)
    board = Board(home, bin_folder)
    try:
        yield board
    finally:
        if (board.bundles / "worker.pid").exists() and is_running(board.worker()):
            os.kill(board.worker(), signal.SIGKILL)
