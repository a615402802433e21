"""Commands that take models in and measure them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from planner import terminal
from planner.cli.app import command, refuse_folder
from planner.errors import InputError
from planner.options import Seed


@command
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .pt, .bin or .npz file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's folder; its last part is the model's name.")],
    num_heads: Annotated[int | None, typer.Option(help="Heads of each block: they do not show in weights.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="A file with a class name on each line, or A,B,C; numbers unless given.")
    ] = None,
    layer_norm_eps: Annotated[
        float | None, typer.Option(help="Of all layer norms; 1e-12 for Hugging Face's names, else 1e-6, unless given.")
    ] = None,
) -> None:
    """Make a model of a ViT's checkpoint: timm's or DeiT's, Hugging Face's or torchvision's.

    Writes card.json and weights.safetensors; nothing in the checkpoint is executed.

    Example: planner import deit_tiny.pth --num-heads 3 --out models/deit-tiny
    """
    from planner.network import counts
    from planner.network.checkpoint import CARD, whole_shape
    from planner.network.importing import import_checkpoint
    from planner.report.card import card_text
    from planner.schema import Size

    names = None if classes is None else _class_names(classes)
    with terminal.status("converting"):
        card = import_checkpoint(checkpoint, out, num_heads, names, layer_norm_eps)
    size = counts.exact(whole_shape(card))
    terminal.console().print(card_text(card, Size(params=size.params, macs=size.macs)))
    typer.echo(f"{out / CARD}: runs on an image.")
    typer.echo("To profile or retrain it, add `data` and `preprocessing` to the card by hand.")


def _class_names(given: str) -> list[str]:
    """Return the class names in a file, one on each line, or in a list with commas."""
    from planner.schema.base import read_text

    path = Path(given)
    if "," in given and not path.is_file():
        return [name.strip() for name in given.split(",")]
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise InputError(f"--classes {given}: must hold a class name on each line, got none.")
    return names


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
