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
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema

from planner.errors import InputError, quoted
from planner.files import read_text
from planner.schema.bounded_problems import bound_problems
from planner.schema.error_messages import did_you_mean, error_sentence

SCHEMA_VERSION = 1

# Errors to which the size of the file matters: a full disk, a quota, the largest size of a file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Written on trial: a disk that takes no more takes none of these.
_FEW_BYTES = 4096
# Digits of the longest number that Python turns into an int without a setting of its own.
_MAX_DIGITS = 1000
# As many as there may be classes; each unknown key takes a kilobyte until the first is told.
_MAX_KEYS = 100_000
# Up to here, each whole number is a float of its own.
_MAX_WHOLE = 2**53

# A neighbour of the file that it is to become, as `tempfile` names it.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")

_SIZE = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*\Z")
# A number with a prefix, and perhaps an i.
_NEARLY_SIZE = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z])(i?)[A-Za-z]{0,4}\s*\Z")
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

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema by which pydantic validates, in which no list makes more problems than a memory holds."""
        schema = handler(source)
        bound_problems(schema)
        return schema

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
                raise InputError(f"{model.__name__}: unknown key {quoted(key)}{did_you_mean(key, known) or '.'}")
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
    schema_uri: str | None = Field(None, alias="$schema", exclude=True, max_length=1000)
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
        hint = _nearest_size(value) or ""
        raise ValueError(f'must be a number of bytes or a size such as "512MiB", got {quoted(value)}{hint}')
    return Fraction(match[1]) * _FACTORS[match[2]]


def _nearest_size(value: str) -> str | None:
    """Return the sizes that were perhaps meant, for "512Mi", "512 mb" or "512M"."""
    match = _NEARLY_SIZE.match(value)
    if match is None or match[2].upper() not in "BKMGT":
        return None
    number, prefix, binary = match[1], match[2].upper(), match[3]
    units = ["B"] if prefix == "B" else [f"{prefix}iB"] if binary else [f"{prefix}iB", f"{prefix}B"]
    return f"; did you mean {' or '.join(repr(number + unit) for unit in units)}?"


def sha256_of(model: Frozen) -> str:
    """Return the SHA-256 of a model's canonical JSON: keys sorted, no spaces, defaults filled in."""
    return sha256_of_json(model.model_dump(mode="json"))


def sha256_of_json(data: Any) -> str:
    """Return the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_document(path: Path, model: type[_Model]) -> _Model:
    """Read and validate a JSON file.

    Raises:
        InputError: One sentence: the file, the place in it, what must hold, what was got.
    """
    text = read_text(path)
    try:
        data = json.loads(
            text, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_int=_int_of_bounded_length
        )
    except json.JSONDecodeError as error:
        hint = f", got a {path.suffix} file" if path.suffix.lower() in (".yaml", ".yml", ".toml") else ""
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}){hint}.") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a {model.__name__.lower()}.") from None
    try:
        return _validated(text, data, model)
    except ValidationError as error:
        raise InputError(f"{path}: {error_sentence(error, data, model)}") from None


def _validated(text: str, data: Any, model: type[_Model]) -> _Model:
    """Return a model of a file's text; a number such as 2.0 is a whole one, where one must be."""
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        if not any(p["type"] == "int_type" and _is_whole(p["input"]) for p in problems):
            raise
    # Everywhere, as not every problem of a list is told; a whole number may stand for any other.
    return model.model_validate_json(json.dumps(_with_whole_numbers(data)), strict=True)


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE


def _with_whole_numbers(data: Any) -> Any:
    """Return data in which each float without a fraction is an int."""
    if isinstance(data, dict):
        return {key: _with_whole_numbers(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_whole_numbers(value) for value in data]
    return int(data) if _is_whole(data) else data


def check_can_write(path: Path) -> None:
    """Check that a file can be written at a path, before the work that it is to hold.

    Raises:
        InputError: If it cannot be written, or a folder is there.
    """
    try:
        if not path.name or path.is_dir():
            raise InputError(f"{path}: must be a file, got a folder.")
        # The nearest folder that is there: the others are made when the file is written.
        folder = next(folder for folder in path.parents if folder.exists())
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}.") as file:
            file.write(b"\0" * _FEW_BYTES)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"{path}: cannot be written ({reason}).")


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
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise InputError(f"{path}: cannot be written ({error.strerror}): needs {len(content):,} bytes.") from None
        raise _cannot_write(path, error) from None


def is_temporary(path: Path) -> bool:
    """Return whether a file is one that `write_bytes` writes before it is whole; a killed writer leaves it."""
    return _TEMPORARY.fullmatch(path.name) is not None and path.is_file()


def remove_temporary(folder: Path) -> None:
    """Remove what killed writers have left anywhere in a folder that nobody else writes to."""
    for path in filter(is_temporary, list(folder.rglob(".*"))):
        path.unlink(missing_ok=True)


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
    if len(pairs) > _MAX_KEYS:
        raise ValueError(f"an object must have at most {_MAX_KEYS:,} keys, got {len(pairs):,}")
    data = dict(pairs)
    if len(data) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {quoted(twice)} is given twice in one object")
    return data


def _int_of_bounded_length(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"numbers must have at most {_MAX_DIGITS} digits, got {len(digits)}")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"numbers must be finite, got {name}")
