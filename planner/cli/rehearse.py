"""Command that runs a bundle on an emulated fleet."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli import terminal
from planner.cli.app import check_out, checked_fleet, command
from planner.cli.options import BundleFolder, Devices, Json

if TYPE_CHECKING:
    from rich.progress import TaskID

    from planner.runtime.rehearsal.rehearse import OnRehearsal


class ComputeName(str, Enum):
    """Compute times of a rehearsal."""

    planned = "planned"
    measured = "measured"


@command
def rehearse(
    bundle: BundleFolder,
    devices: Devices = Path("devices.json"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the rehearsal here.")] = None,
    num_images: Annotated[
        int | None,
        typer.Option("--images", help="Images to answer.  [default: the test part, once]", min=1),
    ] = None,
    compute: Annotated[
        ComputeName, typer.Option(help="Hold compute to the plan, or let sub-models run at this machine's speed.")
    ] = ComputeName.planned,
    kill: Annotated[
        list[str] | None,
        typer.Option(help="NAME@N: end the device's worker before image N; it is back 50 images later. Repeatable."),
    ] = None,
    namespaces: Annotated[
        bool,
        typer.Option("--namespaces", help="Limit links in network namespaces instead of holding them (root, Linux)."),
    ] = False,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="ONNX Runtime stands in for the C engine, which is built here otherwise.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a bundle on an emulated fleet: predicted beside measured.

    A worker process for each device, with the engine of its board, answers the images of the test part over real
    connections; sub-models in C are built for it (make, cc). Links and compute are held to the plan by waiting, and the
    table says which numbers are held and which are real.

    Example: planner rehearse bundle/ --devices devices.json --out rehearsal.json
             planner rehearse bundle/ --devices devices.json --compute measured
    """
    from planner.executor.bundle import read_bundle
    from planner.report.rehearsal_text import rehearsal_text
    from planner.runtime.rehearsal import RehearsalOptions, rehearse
    from planner.schema import to_json, write_document

    check_out(out)
    terminal.one_thread()
    is_measured = compute is ComputeName.measured
    options = RehearsalOptions(num_images, is_measured, namespaces, tuple(kill or ()), stand_in)
    read = read_bundle(bundle)
    fleet = checked_fleet(bundle, read.plan, read.profile, devices)
    with _ended_by_sigterm(), _progress() as on_progress:
        rehearsal = rehearse(read, fleet, options, on_progress)
    if out is not None:
        write_document(out, rehearsal)
    if json:
        typer.echo(to_json(rehearsal), nl=False)
        return
    terminal.console().print(rehearsal_text(rehearsal))


@contextmanager
def _progress() -> "Iterator[OnRehearsal]":
    with terminal.progress() as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: float, total: float) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield on_progress


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a rehearsal as Ctrl-C does, so that workers and temporary files go."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
