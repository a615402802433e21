"""What all file formats share: frozen models, reading, writing, hashes.

Every complaint about a file is one sentence: file, place in it, what must hold, what was got.
"""

import contextlib
import difflib
import errno
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from planner.errors import InputError

SCHEMA_VERSION = 1

# No place on the disk, or none left of what a user or a process may write.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*\Z")
_FACTORS: dict[str, int] = {"B": 1} | {
    f"{prefix}{suffix}": base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}


class Frozen(BaseModel):
    """Base of everything that is read from or written to JSON."""

    # The text beneath a field is its description: for readers of the code, of docs/formats.md, and in editors.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Document(Frozen):
    """A whole file: its version, and the key that editors use."""

    schema_version: int = Field(SCHEMA_VERSION, ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    """The version of this format."""
    schema_uri: str | None = Field(None, alias="$schema", exclude=True)
    """Where an editor finds the JSON Schema; the planner does not read it."""


M = TypeVar("M", bound=Frozen)


def size_schema(least: int, most: int) -> WithJsonSchema:
    """Return, for editors, both ways to write a size."""
    text = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(B|[KMGT]i?B)\s*$", "examples": ["512MiB", "1.5GB"]}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, text]})


def supplied_bytes(value: Any) -> Any:
    """Turn "512MiB" or "1.5GB" into bytes, rounded down; leave anything else to the field's check.

    Raises:
        ValueError: If a string is not a number with a unit.
    """
    return math.floor(size) if (size := _parse_size(value)) is not None else value


def demanded_bytes(value: Any) -> Any:
    """Do as `supplied_bytes`, but round up."""
    return math.ceil(size) if (size := _parse_size(value)) is not None else value


def _parse_size(value: Any) -> Fraction | None:
    if isinstance(value, float) and value.is_integer():
        return Fraction(value)
    if not isinstance(value, str):
        return None
    match = _SIZE.match(value)
    if match is None:
        raise ValueError(f'must be a number of bytes or a size such as "512MiB", got {value!r}')
    return Fraction(match[1]) * _FACTORS[match[2]]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word most like this one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def sha256_of(model: Frozen) -> str:
    """Return the SHA-256 of a model's canonical JSON: keys sorted, no spaces, defaults filled in."""
    return sha256_of_json(model.model_dump(mode="json"))


def sha256_of_json(data: Any) -> str:
    """Return the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_text(path: Path) -> str:
    """Return a text file's content.

    Raises:
        InputError: If there is no such file, or it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: must be a file, got a folder.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text, byte {error.start} is not.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def read_document(path: Path, model: type[M]) -> M:
    """Read and validate a JSON file.

    Raises:
        InputError: One sentence: the file, the place in it, what must hold, what was got.
    """
    text = read_text(path)
    try:
        data = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: {where}: not JSON ({error.msg}).") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a {model.__name__.lower()}.") from None
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error, data, model)}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary neighbour, then rename.

    Raises:
        InputError: If the file cannot be written there.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see `write_text`. Until it is whole, an old one needs its place beside it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; a result is as readable as any other new file.
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        needed = f": needs {len(content):,} bytes" if error.errno in _FULL else ""
        raise InputError(f"{path}: cannot be written ({error.strerror}){needed}.") from None


def write_document(path: Path, model: Frozen) -> None:
    """Write a model as JSON, whole or not at all."""
    write_text(path, to_json(model))


def to_json(model: Frozen) -> str:
    """Return a model as JSON for people: short lists on one line, a newline at the end."""
    return _pretty(model.model_dump(mode="json")) + "\n"


def _pretty(value: Any, indent: int = 0, width: int = 110) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= width or not isinstance(value, (dict, list)) or not value:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(k, ensure_ascii=False)}: {_pretty(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(pad + item for item in items) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + _pretty(v, indent + 1) for v in value) + "\n" + " " * indent + "]"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice in one object")
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"numbers must be finite, got {name}")


def _sentence(error: ValidationError, data: Any, model: type[BaseModel]) -> str:
    """Return the first problem as a sentence, and how many more there are."""
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
