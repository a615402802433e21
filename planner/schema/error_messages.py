"""What is wrong with data, in one sentence: the place in it, what must hold, what was got."""

import contextlib
import difflib
import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word most like this one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def error_sentence(error: ValidationError, data: Any, model: type[BaseModel]) -> str:
    """Return the first problem as a sentence, and how many more there are.

    Args:
        error: What pydantic found.
        data: What was validated: dicts, lists and plain values.
        model: What it was to be.
    """
    # What may have one of several forms fails as each: of those, the one that goes furthest into the data counts.
    found: dict[tuple[int | str, ...], ErrorDetails] = {}
    for problem in error.errors():
        found.setdefault(_steps(problem, data), problem)
    problems = [loc for loc in found if not any(loc == other[: len(loc)] for other in found if other != loc)]
    # A misspelled key also makes a missing one: name the misspelling.
    problems.sort(key=lambda loc: found[loc]["type"] != "extra_forbidden")
    first, rest = found[problems[0]], len(problems) - 1
    *parents, key = problems[0] or ("",)
    if first["type"] not in ("extra_forbidden", "missing") and isinstance(key, int):
        parents, key = [*parents, key], ""
    place = _place(parents, data)
    what = _what(first, str(key), data, model)
    more = f" ({rest} more like this.)" if rest else ""
    return (f"{place}: " if place else "") + what + more


def _steps(problem: ErrorDetails, data: Any) -> tuple[int | str, ...]:
    """Return the path to a problem, without the names that pydantic gives to the forms that a value may have."""
    *parents, last = problem["loc"] or ("",)
    steps = []
    for step in parents:
        # A form's name is no key of the data.
        with contextlib.suppress(KeyError, IndexError, TypeError):
            data = data[step]
            steps.append(step)
    if problem["type"] == "missing" or (isinstance(data, (dict, list)) and _holds(data, last)):
        steps.append(last)
    return tuple(steps)


def _holds(data: Any, step: int | str) -> bool:
    return step in data if isinstance(data, dict) else isinstance(step, int) and step < len(data)


def _place(parents: list[int | str], data: Any) -> str:
    """Return "devices[1] 'pi'" for ("devices", 1): the path, with names where there are any."""
    text = ""
    for step in parents:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            continue
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            text += f" {data['name']!r}"
    return text


def _what(error: ErrorDetails, key: str, data: Any, model: type[BaseModel]) -> str:
    kind, got, limits = error["type"], error.get("input"), error.get("ctx", {})
    shown = json.dumps(got, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, _known_keys(model)) or '.'}"
    if kind == "missing":
        return f"{key} is missing."
    bounds = {"greater_than": (">", "gt"), "greater_than_equal": (">=", "ge")}
    bounds |= {"less_than": ("<", "lt"), "less_than_equal": ("<=", "le")}
    if kind in bounds:
        sign, name = bounds[kind]
        limit = f"{limits[name]:g}" if isinstance(limits[name], float) else limits[name]
        return f"{key} must be {sign} {limit}, got {shown}.".lstrip()
    if kind == "json_invalid":
        return f"not JSON ({limits['error']})."
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tag = f"{key}.{limits['discriminator'][1:-1]}"
        known = limits.get("expected_tags")
        return f"{tag} must be one of {known}, got {limits['tag']!r}." if known else f"{tag} is missing."
    if kind == "too_short":
        return f"{key} must have at least {limits['min_length']} entry, got {limits['actual_length']}."
    if kind == "value_error":
        message = str(limits["error"])
        return (f"{key} {message}" if message.startswith("must ") and key else message).rstrip(".") + "."
    _, _, text = error["msg"].partition(" should ")
    return f"{key} must {text}, got {shown}.".lstrip()


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Return every key that a file of this format may hold, at any depth."""
    keys: set[str] = set()
    schema = model.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        keys |= set(part.get("properties", {}))
    return keys
