"""Start of a worker of a rehearsal, which ends with its parent.

python -I boot.py PARENT_PID shared|own WORKER ARGUMENT...

The kernel kills the process when its parent is gone, however that ended (Linux alone). With `own` it moves to a network
namespace of its own first, says so on stdout and waits for a line on stdin: until then there is no network in it. A
namespace goes with its last process, and with it all that was plugged in. A worker called `-` does nothing but keep it;
one that is no Python archive takes the place of this process.

Imports the standard library alone, so that the process is as small as it is on a board.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
IN_NAMESPACE = "in a namespace"
NOTHING = "-"


def main() -> None:
    """Run the worker of the command line in this process."""
    parent, network, worker = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have ended before the kernel was told.
        if os.getppid() != parent:
            sys.exit("the parent process is gone")
    if network == "own":
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        print(IN_NAMESPACE, flush=True)
        sys.stdin.readline()
    if worker == NOTHING:
        sys.stdin.read()
        return
    if not worker.endswith(".pyz"):
        os.execv(worker, sys.argv[3:])
    sys.argv = sys.argv[3:]
    runpy.run_path(worker, run_name="__main__")


if __name__ == "__main__":
    main()
