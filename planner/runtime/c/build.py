"""Workers in C, built with this machine's compiler as their folder's Makefile says."""

import os
import shutil
import subprocess
from pathlib import Path

from planner.errors import InputError, PlannerError
from planner.runtime.c.host import find_compiler
from planner.runtime.c.worker_files import PROGRAM

_MAX_SHOWN = 300


def check_can_build() -> None:
    """Check that this machine has what a worker in C is built with.

    Raises:
        InputError: If there is no compiler or no make.
    """
    find_compiler()
    if shutil.which("make") is None:
        raise InputError("To build a worker in C, make must be on the path, got none; install make.")


def build_worker(folder: Path) -> Path:
    """Build the worker of a C device folder for this machine, and return its program.

    Raises:
        InputError: If there is no compiler or no make.
        PlannerError: If it cannot be built, with the compiler's first complaint.
    """
    check_can_build()
    # What a make around this process was told is for another Makefile.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    command = ["make", "-C", str(folder), PROGRAM, f"CC={find_compiler()}"]
    made = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if made.returncode:
        lines = made.stderr.strip().splitlines() or ["it said nothing"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise PlannerError(f"{folder}: the worker cannot be built by {find_compiler()}: {reason[:_MAX_SHOWN]}.")
    return folder / PROGRAM
