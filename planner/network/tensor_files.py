"""Readers of files of tensors: strict, and without unpickling.

Formats: safetensors, perhaps in shards with an index; .pth, .pt, .bin, .ckpt and .tar, of which torch reads the tensors
and refuses all else; .npz of plain arrays.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from planner.array_files import read_arrays
from planner.errors import InputError, quoted
from planner.files import read_content
from planner.schema.text import FileName
from planner.units import shorten

MAX_CHECKPOINT_BYTES = 16 * 2**30

_INDEX = ".safetensors.index.json"


class _ShardIndex(BaseModel):
    """Index of a checkpoint in shards: the file of each tensor."""

    weight_map: dict[str, FileName]


# A type or function that torch's reader does not know, and so does not call.
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_MAX_TYPE = 80
# Types in a whole model and among the options of a training, where either was pickled.
_PARTS_OF_NETWORKS = ("torch.nn.", "timm.", "torchvision.", "transformers.")
_OPTIONS = ("Namespace", "Config", "DictConfig", "Arguments")
# First bytes of what people download in place of weights, and what to do instead.
_NO_WEIGHTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights: run git lfs pull, or download the file itself",
    b"<!doctype html": "is an HTML page, not the weights: download the file itself",
    b"<html": "is an HTML page, not the weights: download the file itself",
}


def read_values(path: Path, content: bytes) -> Mapping[Any, Any]:
    """Return what a file maps names to: tensors, or of a checkpoint of a training other plain values, too.

    Args:
        path: Path of the file, whose suffix names the format.
        content: The file's bytes.

    Raises:
        InputError: If the bytes are not of that format, or hold what would have to be unpickled.
    """
    for beginning, reason in _NO_WEIGHTS.items():
        if content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(beginning):
            raise InputError(f"{path}: {reason}.")
    if path.name.endswith(_INDEX):
        return _shards(path, content)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: must be a {', '.join(_READERS)} file, got {path.suffix or 'no suffix'}.")
    return reader(path, content)


def _safetensors(path: Path, content: bytes) -> Mapping[Any, Any]:
    try:
        return load_tensors(content)
    except SafetensorError:
        raise InputError(f"{path}: must be a safetensors file, got a damaged one or another format.") from None


def _shards(path: Path, content: bytes) -> Mapping[Any, Any]:
    """Return the tensors of all shards of an index, which lie beside it."""
    try:
        files = _ShardIndex.model_validate_json(content).weight_map.values()
    except ValidationError:
        raise InputError(f"{path}: must have a weight_map from names of tensors to files beside it.") from None
    tensors: dict[Any, Any] = {}
    left = MAX_CHECKPOINT_BYTES
    for file in sorted(set(files)):
        shard = read_content(path.parent / file, left)
        left -= len(shard)
        tensors |= _safetensors(path.parent / file, shard)
    return tensors


def _torch(path: Path, content: bytes) -> Mapping[Any, Any]:
    _check_not_packed(path, content)
    try:
        with warnings.catch_warnings():
            # Old files store tensors in a way of which torch warns.
            warnings.simplefilter("ignore")
            # weights_only: nothing in the file is executed, and anything but tensors is refused.
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # A damaged or hostile file can fail anywhere in torch's reader, with any exception.
    except Exception as error:
        found = _REFUSED_GLOBAL.search(str(error))
        raise InputError(
            f"{path}: must be a checkpoint of tensors and nothing else, {_what_else(found and found[1])}. Save the "
            "tensors alone: torch.save(model.state_dict(), 'weights.pth')."
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must map names to tensors, got {type(value).__name__}.")
    return value


def _what_else(pickled: str | None) -> str:
    """Return what a file was found to hold, given the name of the type that was refused, if it is known."""
    if pickled is None:
        return "got a damaged file or another format"
    if pickled.startswith(_PARTS_OF_NETWORKS) or "ransformer" in pickled:
        return f"got a whole pickled model ({quoted(pickled)})"
    if pickled.endswith(_OPTIONS):
        return f"got the options of a training ({quoted(pickled)}) beside them"
    return f"got a pickled {shorten(pickled, _MAX_TYPE)} in it"


def _check_not_packed(path: Path, content: bytes) -> None:
    """Check that nothing in an archive of torch's is compressed: torch never does, and it may unpack to anything."""
    with suppress(zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise InputError(f"{path}: must be an archive as torch.save writes it, got a compressed one.")


def _npz(path: Path, content: bytes) -> Mapping[Any, Any]:
    # From the file again, of which only headers are read before its sizes are known to be bounded.
    return {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}


_READERS: dict[str, Callable[[Path, bytes], Mapping[Any, Any]]] = {
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".bin": _torch,
    ".ckpt": _torch,
    ".tar": _torch,
    ".npz": _npz,
}
