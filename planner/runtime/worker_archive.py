"""worker.pyz: the worker as one file that a device's Python runs, without anything to install.

It is a zip archive of the package `planner.runtime.device`, of equal bytes wherever and whenever it is made.
"""

import io
import zipfile
from pathlib import Path

from planner.errors import InputError

# Name of the package within the archive.
_PACKAGE = "worker"
_MAIN = f"import sys\n\nfrom {_PACKAGE}.__main__ import main\n\nsys.exit(main())\n"
# The earliest time that a zip archive can hold.
_TIME = (1980, 1, 1, 0, 0, 0)


def worker_archive() -> bytes:
    """Return the content of worker.pyz.

    Raises:
        InputError: If the worker's modules lie in no folder, as in an archive.
    """
    folder = Path(__file__).parent / "device"
    modules = sorted(folder.glob("*.py"))
    if not modules:
        raise InputError(f"{folder}: must hold the worker's modules, got none; install the planner again.")
    files = {f"{_PACKAGE}/{path.name}": path.read_bytes() for path in modules} | {"__main__.py": _MAIN.encode()}
    archive = io.BytesIO()
    # Not compressed: the bytes would depend on the version of zlib.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            # Unix, wherever it is made.
            entry.create_system = 3
            file.writestr(entry, content)
    return archive.getvalue()
