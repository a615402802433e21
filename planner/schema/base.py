"""Basis of all file formats: frozen models, reading, writing, hashes.

Every message about a file is one sentence: file, place in it, what must hold, what was got.
"""

import errno
import hashlib
import json
import math
import os
import re
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from planner.errors import InputError
from planner.schema.error_messages import did_you_mean, error_sentence

SCHEMA_VERSION = 1

# Errors to which the size of the file matters: a full disk, a quota, the largest size of a file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*\Z")
_FACTORS: dict[str, int] = {"B": 1} | {
    f"{prefix}{suffix}": base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}

_Model = TypeVar("_Model", bound="Frozen")


# A key that older versions wrote: accepted, and forgotten.
Forgotten = Annotated[SkipJsonSchema[None], BeforeValidator(lambda value: None), Field(exclude=True, repr=False)]


class Frozen(BaseModel):
    """Base of everything that is read from or written to JSON."""

    # The text beneath a field is its description: for readers of the code, of docs/formats.md, and in editors.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(f"{type(self).__name__}: {error_sentence(error, fields, type(self))}") from None

    # Data of a file is validated without this __init__, so that its errors name the file instead of the class.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def replace(self: _Model, **changes: Any) -> _Model:
        """Return a copy with some fields replaced, validated as if it were read from a file.

        Args:
            changes: New values by field, as objects or as in the file: `memory_budget="512KiB"`.

        Raises:
            InputError: If there is no such field, or the result is not valid, with the sentence that a file would get.
        """
        model, known = type(self), type(self).model_fields
        for key in changes:
            if key not in known:
                raise InputError(f"{model.__name__}: unknown key {key!r}{did_you_mean(key, known) or '.'}")
        data = {field.alias or key: changes.get(key, getattr(self, key)) for key, field in known.items()}
        try:
            # Through JSON, so that values are accepted and refused exactly as in a file, with the same messages.
            text = json.dumps(data, default=_plain)
            return model.model_validate_json(text, strict=True)
        except TypeError as error:
            raise InputError(f"{model.__name__}: values must be what a file can hold ({error}).") from None
        except ValidationError as error:
            raise InputError(f"{model.__name__}: {error_sentence(error, json.loads(text), model)}") from None


class Document(Frozen):
    """A whole file: its version, and the key that editors use."""

    schema_version: int = Field(SCHEMA_VERSION, ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    """Version of this format."""
    schema_uri: str | None = Field(None, alias="$schema", exclude=True)
    """Address of the JSON Schema for editors; the planner does not read it."""


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: the fields of a model of ours, the number in a numpy scalar.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(value, Frozen):
        return value.model_dump(mode="json")
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"got {value!r}")


def size_schema(min_bytes: int, max_bytes: int) -> WithJsonSchema:
    """Return the JSON Schema of a size for editors: a number of bytes, or text with a unit."""
    text = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(B|[KMGT]i?B)\s*$", "examples": ["512MiB", "1.5GB"]}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": min_bytes, "maximum": max_bytes}, text]})


def bytes_rounded_down(value: Any) -> Any:
    """Turn "512MiB" or "1.5GB" into bytes, rounded down; leave anything else to the field's check.

    Raises:
        ValueError: If a string is not a number with a unit.
    """
    return math.floor(size) if (size := _parse_size(value)) is not None else value


def bytes_rounded_up(value: Any) -> Any:
    """Turn a size into bytes as `bytes_rounded_down` does, but round up."""
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


def sha256_of(model: Frozen) -> str:
    """Return the SHA-256 of a model's canonical JSON: keys sorted, no spaces, defaults filled in."""
    return sha256_of_json(model.model_dump(mode="json"))


def sha256_of_json(data: Any) -> str:
    """Return the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_text(path: Path) -> str:
    """Return the content of a text file.

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


def read_document(path: Path, model: type[_Model]) -> _Model:
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
        raise InputError(f"{path}: {error_sentence(error, data, model)}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary neighbour, then rename.

    Raises:
        InputError: If the file cannot be written there.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, see `write_text`; until it is whole, the disk holds the old one as well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private, but results should be as readable as any other new file.
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
