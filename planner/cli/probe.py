"""Commands that bring the latency of a device into a profile: `planner probe make`, `planner probe add`."""

from pathlib import Path
from typing import Annotated

import typer

from planner.cli import terminal
from planner.cli.app import app, as_printed, check_out, command_of
from planner.cli.options import Seed

_HELP = """Measure a device's latency on the device itself.

Make a folder here, run probe.py in a copy of it there (no torch is needed), and add what it measured to a profile.

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
    precision: Annotated[str, typer.Option(help="float32, int8 or both.")] = "float32,int8",
    seed: Seed = 0,
) -> None:
    """Write a folder of networks to time, and the script that times them.

    The device needs Python 3.9 or later, numpy and onnxruntime; the model's weights are not needed.

    Example: planner probe make digits-vit --out probes/
    """
    from planner.profiler.device.probe_folder import SCRIPT, make_probes, parse_precisions

    precisions = parse_precisions(precision)
    terminal.one_thread()
    with terminal.progress() as progress:
        task = progress.add_task("export networks")
        manifest = make_probes(
            model, out, precisions, seed, on_network=lambda done, n: progress.update(task, completed=done, total=n)
        )
    num_files = sum(len(n.files) for n in manifest.networks)
    typer.echo(
        f"{out}: {num_files} networks of {manifest.model}. Copy it to the device, run there: "
        f"python {SCRIPT}; then here: planner probe add latency.json --profile PROFILE --kind NAME."
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
    from planner.errors import InputError
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
