"""Settings of an import, as people give them: an activation's name, a file with a map of names."""

import json
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from planner.errors import InputError
from planner.files import read_text
from planner.schema import did_you_mean
from planner.schema.card import Activation, NameMap


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


def read_names(file: Path) -> NameMap:
    """Return a map from our names of parameters to those in a checkpoint, one each, or three for queries to values.

    Raises:
        InputError: If the file is no JSON object of such names.
    """
    try:
        return TypeAdapter(NameMap).validate_python(json.loads(read_text(file)))
    except (ValueError, ValidationError):
        raise InputError(
            f"{file}: must be a JSON object that maps our names of parameters to the checkpoint's, or to three names "
            "for queries, keys and values."
        ) from None
