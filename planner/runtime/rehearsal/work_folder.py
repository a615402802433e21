"""Temporary folder of a rehearsal, which goes with it; what a killed one has left goes with the next."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "rehearsal-"
# Lies in a folder from the moment that its rehearsal holds the lock.
_LOCKED = "locked"


@contextmanager
def work_folder() -> Iterator[Path]:
    """Provide a new folder, and remove those of this user's rehearsals that have ended without removing theirs."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_left_over(path):
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        # The kernel gives a lock back when its process ends, however it ends.
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # Without locks, as on some network disks, a folder is nobody's to remove.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                Path(folder, _LOCKED).touch()
            yield Path(folder)
        finally:
            os.close(descriptor)


def _is_left_over(path: Path) -> bool:
    """Return whether a path is a folder of ours whose rehearsal is gone."""
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or not (path / _LOCKED).exists():
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
