"""Settings of an import, and as people give them: an activation's name, an image's size, a file with a map of names."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from planner.errors import InputError
from planner.files import read_text
from planner.schema import did_you_mean
from planner.schema.architecture import Activation
from planner.schema.card import NameMap

Gate = Literal["first", "last"]


@dataclass(frozen=True)
class ImportSettings:
    """Settings of an import; None where weights, a config.json or a convention say it.

    Attributes:
        num_heads: Heads of each block; needed where neither shapes nor a config.json beside the checkpoint say it.
        image_size: Height and width of the image [pixels]; of a square unless stated.
        classes: Names of the classes; those of the config, or numbers, unless given.
        layer_norm_eps: Epsilon of all norms; that of the config, or the naming scheme's convention, unless given.
        activation: Activation of the MLPs; that of the config, or GELU, of gated ones SiLU, unless given.
        gate: Half of fc1's outputs that are the gates of a gated MLP, where one tensor has both; first unless given.
        ema: True for the moving average of the weights, false for the weights as trained; unless given, the average
            where there is one.
        names: Map from our names of parameters to those in the file; a known naming scheme unless given.
    """

    num_heads: int | None = None
    image_size: tuple[int, int] | None = None
    classes: Sequence[str] | None = None
    layer_norm_eps: float | None = None
    activation: Activation | None = None
    gate: Gate | None = None
    ema: bool | None = None
    names: NameMap | None = None


def read_activation(name: str | None) -> Activation | None:
    """Return an activation by its name.

    Raises:
        InputError: If there is none of this name.
    """
    known: tuple[Activation, ...] = get_args(Activation)
    for activation in known:
        if name == activation:
            return activation
    if name is None:
        return None
    raise InputError(f"must be one of {', '.join(known)}, got {name!r}{did_you_mean(name, known) or '.'}", "activation")


def read_gate(name: str | None) -> Gate | None:
    """Return a half of fc1's outputs by its name.

    Raises:
        InputError: If it is neither "first" nor "last".
    """
    known: tuple[Gate, ...] = get_args(Gate)
    for gate in known:
        if name == gate:
            return gate
    if name is None:
        return None
    raise InputError(f"must be first or last, got {name!r}.", field="gate")


def read_image_size(text: str | None) -> tuple[int, int] | None:
    """Return height and width of a size such as "40x98", or "224" of a square.

    Raises:
        InputError: If it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    if found is None:
        raise InputError(
            f"must be a height and a width such as 40x98, or a side such as 224, got {text!r}.", "image_size"
        )
    height = int(found[1])
    return height, int(found[2] or height)


def read_names(file: Path) -> NameMap:
    """Return a map from our names of parameters to those in a checkpoint.

    A layer has one name, or three for queries, keys and values, or two for gates and values.

    Raises:
        InputError: If the file is no JSON object of such names.
    """
    try:
        return TypeAdapter(NameMap).validate_python(json.loads(read_text(file)))
    except (ValueError, ValidationError):
        raise InputError(
            f"{file}: must be a JSON object that maps our names of parameters to the checkpoint's, or to three names "
            "for queries, keys and values, or to two for gates and values."
        ) from None
