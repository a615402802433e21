"""Readers of files of tensors: strict, and without unpickling.

Formats: safetensors, perhaps in shards with an index; .pth, .pt, .bin, .ckpt and .tar, of which torch reads the tensors
and refuses all else; .npz of plain arrays.
"""

import io
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from planner.errors import InputError

_INDEX = ".safetensors.index.json"
# A type or function that torch's reader does not know, and so does not call.
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
# First bytes of what people download in place of weights, and what to do instead.
_NO_WEIGHTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights: run git lfs pull, or download the file itself",
    b"<!doctype html": "is an HTML page, not the weights: download the file itself",
    b"<html": "is an HTML page, not the weights: download the file itself",
}


def read_content(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def read_values(path: Path, content: bytes) -> Mapping[Any, Any]:
    """Return what a file maps names to: tensors, or of a checkpoint of a training other plain values, too.

    Args:
        path: Path of the file, whose suffix names the format.
        content: The file's bytes.

    Raises:
        InputError: If the bytes are not of that format, or hold what would have to be unpickled.
    """
    for beginning, reason in _NO_WEIGHTS.items():
        if content[:64].lstrip().lower().startswith(beginning):
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
        files = sorted(set(json.loads(content)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: must have a weight_map from names of tensors to files of them.") from None
    tensors: dict[Any, Any] = {}
    for file in files:
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(f"{path}: weight_map must name files beside it, got {str(file)[:80]!r}.")
        tensors |= _safetensors(path.parent / file, read_content(path.parent / file))
    return tensors


def _torch(path: Path, content: bytes) -> Mapping[Any, Any]:
    try:
        with warnings.catch_warnings():
            # Old files store tensors in a way of which torch warns.
            warnings.simplefilter("ignore")
            # weights_only: nothing in the file is executed, and anything but tensors is refused.
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # A damaged or hostile file can fail anywhere in torch's reader, with any exception.
    except Exception as error:
        found = _REFUSED_GLOBAL.search(str(error))
        reason = f"got a pickled {found[1]} in it" if found else "got a damaged file or another format"
        raise InputError(
            f"{path}: must be a checkpoint of tensors and nothing else, {reason}. Save the tensors alone: "
            "torch.save(model.state_dict(), 'weights.pth')."
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must map names to tensors, got {type(value).__name__}.")
    return value


def _npz(path: Path, content: bytes) -> Mapping[Any, Any]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays}
    # np.load of a lone array returns no context manager; an array of objects, or of a type that torch lacks, is a
    # ValueError or TypeError.
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path}: must be an .npz file of plain arrays, got a damaged one or another kind.") from None


_READERS: dict[str, Callable[[Path, bytes], Mapping[Any, Any]]] = {
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".bin": _torch,
    ".ckpt": _torch,
    ".tar": _torch,
    ".npz": _npz,
}
