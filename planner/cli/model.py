"""Commands that measure models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from planner import terminal
from planner.cli.app import command, refuse_folder
from planner.options import Seed


@command
def profile(
    model: Annotated[str, typer.Argument(help="A shipped model's name, or the path of a card.json.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the profile here.")] = None,
    seed: Seed = 0,
) -> None:
    """Measure a model: costs, importance for each class, what accuracy survives, this machine's speed.

    Takes a few minutes; stopped at any moment, the same command goes on from where it was.

    Example: planner profile digits-vit --out digits-vit.json
    """
    from planner.profiler.build import Stage, build_profile
    from planner.schema import to_json, write_document

    refuse_folder(out)
    terminal.one_thread()
    work = out.with_name(f".{out.name}.probes") if out else Path(f".{Path(model).parent.name or model}.probes")
    with terminal.progress() as progress:
        tasks: dict[str, Any] = {}

        def on_stage(stage: Stage) -> None:
            if stage.name not in tasks:
                for task in tasks.values():
                    progress.update(task, completed=progress.tasks[task].total)
                tasks[stage.name] = progress.add_task(stage.name)
            progress.update(tasks[stage.name], completed=stage.done, total=stage.total)

        built = build_profile(model, work, seed, on_stage)
    if out is None:
        typer.echo(to_json(built), nl=False)
    else:
        write_document(out, built)
        typer.echo(f"{out}: profile of {built.model}.")
    work.unlink(missing_ok=True)
