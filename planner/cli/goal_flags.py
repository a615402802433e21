"""Goal from a goal file and from flags, which win over it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.errors import InputError
from planner.schema import Goal, GoalFile, read_document
from planner.schema.error_messages import error_sentence


def read_goal(path: Path | None, flags: Mapping[str, Any]) -> Goal:
    """Return the goal of a file (or the default goal), with the keys of the flags that are given.

    Raises:
        InputError: If the file or a flag cannot be used; the message names it.
    """
    if flags.get("max_accuracy_drop") is not None and flags.get("min_retention") is not None:
        raise InputError("--max-accuracy-drop and --min-retention both set the floors: give one of them.")
    in_file = {} if path is None else read_document(path, GoalFile).model_dump(exclude={"schema_version"})
    given = {
        key: value for key, value in flags.items() if value is not None and value is not False and value not in ((), {})
    }
    # A floor that is given replaces the other one, which may be in the file.
    if "min_retention" in given:
        given["max_accuracy_drop"] = None
    elif "max_accuracy_drop" in given:
        given["min_retention"] = None
    data = in_file | given
    try:
        return Goal.model_validate(data)
    except ValidationError as error:
        key = next(iter(error.errors()[0]["loc"]), None)
        sentence = error_sentence(error, data, Goal)
        if key in given:
            flag = "--" + str(key).replace("_", "-")
            raise InputError(sentence.replace(str(key), flag, 1)) from None
        raise InputError(sentence if path is None else f"{path}: {sentence}") from None


def placements(pairs: Sequence[str], flag: str) -> dict[str, tuple[str, ...]]:
    """Return {class: devices} for pairs such as "8=gateway"."""
    found: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        name, separator, device = pair.rpartition("=")
        if not (separator and name and device):
            raise InputError(f"{flag}: must be CLASS=DEVICE, got {pair!r}.")
        found[name] = (*found.get(name, ()), device)
    return found


def class_sets(texts: Sequence[str], flag: str) -> tuple[tuple[str, ...], ...]:
    """Return (("3", "5"),) for ["3,5"]."""
    found = []
    for text in texts:
        names = tuple(name for name in text.split(",") if name)
        if len(names) < 2:
            raise InputError(f"{flag}: must be classes with commas between, such as 3,5, got {text!r}.")
        found.append(names)
    return tuple(found)
