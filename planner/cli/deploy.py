"""Command that brings a deployment to its boards."""

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.app import command


@command
def deploy(
    deployment: Annotated[Path, typer.Argument(help="The folder that export wrote.", metavar="DEPLOYMENT")],
    to: Annotated[
        list[str], typer.Option(help="NAME=USER@HOST,...: the board of each device, as ssh takes it. Repeatable.")
    ],
    listen: Annotated[str, typer.Option(help="HOST:PORT that each worker listens on, there.")] = "0.0.0.0:7447",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Copy nothing: go back to the folder before the current one.")
    ] = False,
) -> None:
    """Copy folders to boards, test them there, and start the workers.

    It takes your own ssh and keys. A board needs Python 3.9, and for ONNX Runtime numpy and onnxruntime, in
    ~/bundles/venv if not in its own Python; for a worker in C make and cc, unless `worker` was built into the folder
    before. Microcontrollers have no ssh: their folder's README.md tells how to build a firmware. A folder whose
    self-test fails there changes nothing; the one before is kept.

    Example: planner deploy deploy/ --to gateway=pi@10.0.0.2,pi-1=pi@10.0.0.3
    """
    from planner.runtime.deploy import check_listen, parse_targets, roll_back_to_previous
    from planner.runtime.deploy import deploy as deploy_to
    from planner.runtime.deployment import read_deployment
    from planner.units import visible

    check_listen(listen)
    targets = parse_targets(to, read_deployment(deployment))
    for target in targets:
        name, where = visible(target.device.manifest.device), visible(target.destination)
        typer.echo(f"{name}: {'going back' if rollback else 'copying'} on {where} ...", err=True)
        started = roll_back_to_previous(target, listen) if rollback else deploy_to(target, listen)
        typer.echo(f"{name}: the worker listens on {started.listening}; it runs {where}:bundles/{started.folder}.")
