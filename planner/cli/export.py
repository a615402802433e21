"""Command that exports a bundle to folders that devices can run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli import terminal
from planner.cli.app import command
from planner.cli.options import BundleFolder, Devices

if TYPE_CHECKING:
    from rich.progress import TaskID


@command
def export(
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make, for all devices.")],
    devices: Devices = Path("devices.json"),
    stand_in: Annotated[
        bool,
        typer.Option(
            "--stand-in", help="ONNX Runtime stands in for the C engine: not for boards that it does not run on."
        ),
    ] = False,
    tls: Annotated[
        list[str] | None,
        typer.Option(help="NAME,...: Linux boards with the C engine whose worker is to speak TLS. Repeatable."),
    ] = None,
) -> None:
    """Write a folder for each device, ready to run.

    Each holds the sub-model, a worker, and expected answers: for ONNX Runtime a graph and one file of Python, for
    microcontrollers and 32-bit boards C with a Makefile. What is exported is compared with torch on the test part, and
    its accuracy is measured. Beyond loopback, workers of Python speak TLS, and of those in C the ones that --tls names,
    which need Mbed TLS.

    Example: planner export bundle/ --devices devices.json --out deploy/
    """
    from planner.library import load_fleet
    from planner.report.export_text import export_text
    from planner.runtime.export import export_bundle

    terminal.one_thread()
    encrypted = [name.strip() for text in tls or () for name in text.split(",")]
    fleet = load_fleet(devices)
    with terminal.progress() as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what)
            progress.update(tasks[what], completed=done, total=total)

        exported = export_bundle(bundle, fleet, out, stand_in=stand_in, tls=encrypted, on_progress=on_progress)
    terminal.console().print(export_text(exported))
    typer.echo(f"{out}: folders of {len(exported.precisions)} devices and of the aggregator.")
