"""Validation errors in one sentence: the place in the data, what must hold, what was got."""

import contextlib
import difflib
import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from planner.errors import quoted
from planner.units import shorten

# Of a key and a word that is compared with others; no key of ours is longer.
_MAX_KEY, _MAX_WORD = 60, 200


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the known word most like this one, or nothing."""
    close = difflib.get_close_matches(word[:_MAX_WORD], list(known), n=1, cutoff=0.5)
    return f"; did you mean {quoted(close[0])}?" if close else ""


def error_sentence(error: ValidationError, data: Any, model: type[BaseModel]) -> str:
    """Return the first problem as a sentence, with the number of the others.

    Args:
        error: The problems that pydantic found.
        data: The data that was validated: dicts, lists and plain values.
        model: The model that it was validated as.
    """
    # A union fails as each of its members: of these, the problem that lies deepest in the data counts.
    found: dict[tuple[int | str, ...], ErrorDetails] = {}
    for problem in error.errors():
        found.setdefault(_steps(problem, data), problem)
    above = {loc[:i] for loc in found for i in range(len(loc))}
    problems = [loc for loc in found if loc not in above]
    # A misspelled key also makes a missing one, and the misspelling is the better message.
    problems.sort(key=lambda loc: found[loc]["type"] != "extra_forbidden")
    first, rest = found[problems[0]], len(problems) - 1
    *parents, key = problems[0] or ("",)
    if first["type"] not in ("extra_forbidden", "missing") and isinstance(key, int):
        parents, key = [*parents, key], ""
    place = _place(parents, data)
    sentence = _problem(first, str(key), data, model)
    more = f" ({rest} more like this.)" if rest else ""
    return (f"{place}: " if place else "") + sentence + more


def _steps(problem: ErrorDetails, data: Any) -> tuple[int | str, ...]:
    """Return the path to a problem, without the names that pydantic gives to the members of a union."""
    *parents, last = problem["loc"] or ("",)
    steps = []
    for step in parents:
        # The name of a union member is no key of the data.
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
        key = shorten(str(step), _MAX_KEY)
        text += f"[{step}]" if isinstance(step, int) else (f".{key}" if text else key)
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            continue
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            text += f" {quoted(data['name'])}"
    return text


def _problem(error: ErrorDetails, key: str, data: Any, model: type[BaseModel]) -> str:
    error_type, got, limits = error["type"], error.get("input"), error.get("ctx", {})
    shown = json.dumps(got, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if error_type == "extra_forbidden":
        return f"unknown key {quoted(key)}{did_you_mean(key, _known_keys(model)) or '.'}"
    key = shorten(key, _MAX_KEY)
    if error_type == "missing":
        return f"{key} is missing."
    bounds = {"greater_than": (">", "gt"), "greater_than_equal": (">=", "ge")}
    bounds |= {"less_than": ("<", "lt"), "less_than_equal": ("<=", "le")}
    if error_type in bounds:
        sign, name = bounds[error_type]
        limit = f"{limits[name]:g}" if isinstance(limits[name], float) else limits[name]
        return f"{key} must be {sign} {limit}, got {shown}.".lstrip()
    if error_type == "json_invalid":
        return f"not JSON ({limits['error']})."
    if error_type in ("union_tag_not_found", "union_tag_invalid"):
        tag = f"{key}.{limits['discriminator'][1:-1]}"
        known = limits.get("expected_tags")
        return f"{tag} must be one of {known}, got {quoted(limits['tag'])}." if known else f"{tag} is missing."
    if error_type == "too_short":
        return f"{key} must have at least {limits['min_length']} entry, got {limits['actual_length']}."
    if error_type == "value_error":
        message = str(limits["error"])
        sentence = f"{key} {message}" if message.startswith("must ") and key else message
        return sentence if sentence.endswith("?") else sentence.rstrip(".") + "."
    _, _, text = error["msg"].partition(" should ")
    return f"{key} must {text}, got {shown}.".lstrip()


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Return every key that a file of this format may hold, at any depth."""
    keys: set[str] = set()
    schema = model.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        keys |= set(part.get("properties", {}))
    return keys
