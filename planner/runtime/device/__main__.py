"""Answer images with the sub-model of a device folder.

It listens on loopback unless told otherwise. Outside loopback all is encrypted with the folder's certificate. Whoever
asks must prove to have the folder's token.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any

from .addresses import DEFAULT_PORT, resolve
from .errors import DeviceError
from .inference import Hold
from .names import CERTIFICATE, KEY
from .worker import Served, Worker, server_context

try:
    from .folder import LoadedSubModel, SubModelFolder, read_folder, read_token, run_self_test
except ModuleNotFoundError as _error:
    sys.exit(f"The worker needs {_error.name}, which is not installed: pip install numpy onnxruntime.")

_HELD = ("send", "compute", "return")


def main(arguments: list[str] | None = None) -> int:
    """Run the worker, and return its exit code: 0 done, 1 unusable folder or address, 2 bad arguments, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        folder = read_folder(options.folder)
        features_of = LoadedSubModel(folder)
        difference = run_self_test(folder, features_of)
        log(f"{folder.device}: self-test passed, answers differ by {difference:.1g} of the largest")
        if not options.self_test:
            _serve(folder, features_of, options)
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def log(text: str) -> None:
    """Write a line of the log, with the time."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def _serve(folder: SubModelFolder, features_of: LoadedSubModel, options: Any) -> None:
    endpoint = resolve(options.listen)
    served = Served(
        bundle=folder.bundle,
        token=read_token(folder.path),
        about=folder.about(tuple(options.hold)),
        image_bytes=folder.image_bytes,
        features_of=features_of,
    )
    context = None if endpoint.is_loopback else server_context(folder.path / CERTIFICATE, folder.path / KEY)
    try:
        marks = None if options.marks is None else options.marks.open("wb")
    except OSError as error:
        raise DeviceError(f"{options.marks}: cannot be written ({error.strerror}).") from None
    hold = Hold(**{f"{part}_us": us for part, us in options.hold.items()})
    worker = Worker(served, endpoint, context, log, hold, marks)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    print(f"listening on {worker.endpoint}", flush=True)
    worker.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the device folder that the export wrote")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        help="address to listen on; port 0 is any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--hold",
        metavar="PART=US,...",
        default={},
        type=_held,
        help="for a rehearsal: wait until parts took their planned time: send=1240,compute=2870,return=30",
    )
    parser.add_argument(
        "--marks", metavar="FILE", type=Path, help="for a rehearsal: write the moments of each request to a file"
    )
    parser.add_argument("--self-test", action="store_true", help="compare answers with the expected ones, and end")
    return parser


def _held(text: str) -> dict[str, int]:
    held = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in _HELD or not (value.isascii() and value.isdigit() and len(value) <= 10):
            raise argparse.ArgumentTypeError(f"must be PART=US, with a part of {', '.join(_HELD)}, got {part[:100]!r}")
        held[name] = int(value)
    return held


if __name__ == "__main__":
    sys.exit(main())
