"""Command that imports models."""

from pathlib import Path
from typing import Annotated

import typer

from planner.cli import terminal
from planner.cli.app import command
from planner.errors import InputError


@command
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="A .safetensors, .pth, .pt, .bin, .ckpt, .tar or .npz file, or an index of shards.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's folder; its last part is the model's name.")],
    num_heads: Annotated[
        int | None, typer.Option(help="Heads of each block; needed where no config.json beside the checkpoint says it.")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="Of the MLPs: gelu, gelu_tanh, quick_gelu, relu, silu or sigmoid; gelu, of gates silu."),
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(help="Of gated MLPs with one first layer: whether gates are the first or last half; first."),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Height and width such as 40x98; a square unless given here or in config.json.")
    ] = None,
    ema: Annotated[
        bool | None,
        typer.Option(
            help="Of a training's checkpoint, take the moving average of the weights; the default if it has one."
        ),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="A JSON file that maps our names of parameters to those in the checkpoint.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="A file with a class name on each line, or A,B,C; numbers unless given.")
    ] = None,
    layer_norm_eps: Annotated[
        float | None,
        typer.Option(help="Epsilon of all layer norms; 1e-12 for Hugging Face's names, else 1e-6, unless given."),
    ] = None,
) -> None:
    """Make a model of a ViT's checkpoint.

    It may be timm's, DeiT's, Hugging Face's, torchvision's or Google's, alone or as a training wrote it. A config.json
    beside it is read for what weights do not show: heads, activation, epsilon, class names, mean and std. The card says
    what was assumed and what was rewritten. Writes card.json and weights.safetensors; nothing in the checkpoint is
    executed.

    Example: planner import deit_tiny.pth --num-heads 3 --out models/deit-tiny
    """
    from planner.network import counts
    from planner.network.checkpoint import CARD, whole_shape
    from planner.network.import_settings import (
        ImportSettings,
        read_activation,
        read_gate,
        read_image_size,
        read_names,
    )
    from planner.network.importing import import_checkpoint
    from planner.report.card_text import card_text
    from planner.schema import Size

    settings = ImportSettings(
        num_heads=num_heads,
        image_size=read_image_size(image_size),
        classes=None if classes is None else _class_names(classes),
        layer_norm_eps=layer_norm_eps,
        activation=read_activation(activation),
        gate=read_gate(gate),
        ema=ema,
        names=None if names is None else read_names(names),
    )
    with terminal.status("converting"):
        card = import_checkpoint(checkpoint, out, settings)
    size = counts.exact(whole_shape(card))
    terminal.console().print(card_text(card, Size(params=size.params, macs=size.macs)))
    typer.echo(f"{out / CARD}: runs on an image.")
    missing = "`data`" if card.preprocessing is not None else "`data` and `preprocessing`"
    typer.echo(f"To profile or retrain it, add {missing} to the card by hand.")


def _class_names(given: str) -> list[str]:
    """Return the class names in a file, one on each line, or in a list with commas."""
    from planner.files import is_file, read_text

    path = Path(given)
    is_list = "," in given and not is_file(path)
    text = given if is_list else read_text(path)
    # Of one name each, as other programs write them: {0: 'tench', ...} or ["cat", ...].
    if text.lstrip()[:1] in ("{", "[") and text.rstrip()[-1:] in ("}", "]"):
        wanted = "be names with commas between" if is_list else "hold a class name on each line"
        raise InputError(f"--classes {given}: must {wanted}, got a list in brackets or braces: take them off.")
    names = [name.strip() for name in (text.split(",") if is_list else text.splitlines())]
    names = names if is_list else [name for name in names if name]
    if not names:
        raise InputError(f"--classes {given}: must hold a class name on each line, got none.")
    return names
