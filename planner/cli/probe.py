"""Commands that bring the latency of a device into a profile: `planner probe make`, `planner probe add`."""

from pathlib import Path
from typing import Annotated

import typer

from planner.cli import terminal
from planner.cli.app import app, as_printed, check_out, command_of
from planner.cli.options import EngineName, Seed
from planner.errors import InputError

_HELP = """Measure a device's latency on the device itself.

Make a folder here, run probe.py in a copy of it there (no torch is needed), or a program in C on a device whose engine
that is, and add what it measured to a profile.

Example: planner probe make digits-vit --out probes/
         planner probe add latency.json --profile profile.json --kind my-board
"""

probe = typer.Typer(
    name="probe",
    help=as_printed(_HELP),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(probe)


@command_of(probe)
def make(
    model: Annotated[str, typer.Argument(help="A shipped model's name, or the path of a card.json.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make, for the device.")],
    engine: Annotated[EngineName, typer.Option(help="Engine to time the networks in.")] = EngineName.onnxruntime,
    storage: Annotated[
        str | None,
        typer.Option(help="Flash that the networks in C may take, such as 512KiB.  [default: a Linux board's memory]"),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, int8 or both.")] = "float32,int8",
    seed: Seed = 0,
) -> None:
    """Write a folder of networks to time, and the program that times them.

    For ONNX Runtime, the device needs Python 3.9 or later, numpy and onnxruntime. For the engine c, the folder is C for
    a Linux board or a firmware, and its README says how to build it. The model's weights are not needed.

    Example: planner probe make digits-vit --out probes/
             planner probe make digits-vit --out c/ --engine c --storage 512KiB
    """
    from planner.profiler.device.probe_folder import SCRIPT, make_probes, parse_precisions
    from planner.runtime.c.probes.folder import make_c_probes, parse_storage

    if storage is not None and engine is not EngineName.c:
        raise InputError("--storage must be given for --engine c alone, whose weights are in flash; leave it out.")
    precisions = parse_precisions(precision)
    storage_bytes = None if storage is None else parse_storage(storage)
    terminal.one_thread()
    with terminal.progress() as progress:
        task = progress.add_task("export networks")

        def on_network(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if engine is EngineName.c:
            manifest = make_c_probes(model, out, precisions, seed, storage_bytes, on_network)
        else:
            manifest = make_probes(model, out, precisions, seed, on_network)
    num_probes = sum(len(n.files) for n in manifest.networks)
    run = "make && ./probe > latency.json, or as its README.md says" if engine is EngineName.c else f"python {SCRIPT}"
    typer.echo(
        f"{out}: {num_probes} networks of {manifest.model}. Copy it to the device, run there: "
        f"{run}; then here: planner probe add latency.json --profile PROFILE --kind NAME."
    )


@command_of(probe)
def add(
    latency: Annotated[Path, typer.Argument(help="The latency.json from the device.", metavar="LATENCY")],
    profile: Annotated[str, typer.Option("--profile", "-p", help="A profile.json, or a shipped profile's name.")],
    kind: Annotated[str, typer.Option(help="The device kind to put the rows under.")],
    threads: Annotated[int, typer.Option(help="How many threads the sub-models will run on.", min=1)] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the profile here.  [default: over the profile.json]")
    ] = None,
) -> None:
    """Put a device's latency into a profile.

    The latency model is fitted to the timings; where they do not follow it, nothing is written.

    Example: planner probe add latency.json --profile profile.json --kind my-board
    """
    from planner.library import load_kinds, load_profile
    from planner.profiler.device.latency_table import latency_table, with_table
    from planner.report.latency_text import latency_text
    from planner.schema import ProbeResult, did_you_mean, read_document, write_document

    check_out(out)
    if out is None and not profile.endswith(".json") and "/" not in profile:
        raise InputError(f"--out must say where to write the profile: {profile!r} is a shipped one and stays as it is.")
    target = out or Path(profile)
    known = load_profile(profile)
    result = read_document(latency, ProbeResult)
    try:
        table = latency_table(result, known, threads)
    except InputError as error:
        raise InputError(f"{latency}: {error}") from None
    write_document(target, with_table(known, kind, table.rows))
    terminal.console().print(latency_text(kind, table.rows))
    for note in table.notes:
        typer.echo(f"Note: {note}")
    kinds = {*known.latency, *load_kinds()}
    if kind not in kinds:
        typer.echo(f"Note: {kind!r} is a new kind{did_you_mean(kind, kinds)}")
    typer.echo(f"{target}: profile of {known.model} with the latency of {kind}.")
