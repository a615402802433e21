"""Reader of NumPy archives (.npz) that others made: arrays of numbers alone, no larger than a ceiling.

What an archive declares is compared with its header before anything is unpacked: a file of a few megabytes may state,
or unpack to, more than any memory holds. Nothing is unpickled.
"""

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError, quoted
from planner.files import open_file
from planner.units import format_bytes

MAX_ARRAY_BYTES = 2 * 2**30
# More than the header of any plain array takes.
_MAX_HEADER_BYTES = 2**16
_CHUNK_BYTES = 2**20
_IS_ENCRYPTED = 1
_NUMBERS = "biuf"


@dataclass(frozen=True)
class _Entry:
    """Array in an archive, as its header describes it."""

    info: zipfile.ZipInfo
    start: int  # bytes of the header
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_arrays(
    path: Path, names: Sequence[str] | None = None, max_bytes: int = MAX_ARRAY_BYTES
) -> dict[str, NDArray[Any]]:
    """Return arrays of an archive by their names.

    Args:
        path: The file.
        names: Names of the arrays to read; all of them unless given.
        max_bytes: Largest size of the arrays together, unpacked [bytes].

    Raises:
        InputError: If the file cannot be read, is no archive of plain arrays, lacks a name or holds more than that.
    """
    with open_file(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_entries(path, archive, names, max_bytes)
        except InputError:
            raise
        # A damaged archive can fail anywhere in the readers of two libraries, with any exception.
        except Exception:
            raise InputError(
                f"{path}: must be an .npz file of plain arrays, got a damaged one or another kind."
            ) from None


def _read_entries(
    path: Path, archive: zipfile.ZipFile, names: Sequence[str] | None, max_bytes: int
) -> dict[str, NDArray[Any]]:
    known = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for name in names or ():
        if name not in known:
            raise InputError(f"{path}: must hold {quoted(name)}, got {', '.join(known) or 'nothing'}.")
    wanted = {name: known[name] for name in known if names is None or name in names}
    entries = {name: _entry(path, archive, info) for name, info in wanted.items()}
    total = sum(entry.num_bytes for entry in entries.values())
    if total > max_bytes:
        raise InputError(
            f"{path}: arrays must take at most {format_bytes(max_bytes)} unpacked, got {format_bytes(total)}."
        )
    return {name: _read(archive, entry) for name, entry in entries.items()}


def _entry(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    """Return what the header of an array says, which must be what the archive states."""
    where = f"{path}: {quoted(info.filename.removesuffix('.npy'))}"
    if info.flag_bits & _IS_ENCRYPTED:
        raise InputError(f"{where} must not be encrypted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where} must be stored as it is or deflated, as numpy writes it, got another compression.")
    with archive.open(info) as file:
        # A header may state its own size, too.
        header = io.BytesIO(file.read(_MAX_HEADER_BYTES))
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, is_fortran, dtype = read[np.lib.format.read_magic(header)](header)
    if dtype.kind not in _NUMBERS:
        raise InputError(f"{path}: must be an .npz file of plain arrays, got {dtype} in {quoted(info.filename)}.")
    entry = _Entry(info, header.tell(), shape, is_fortran, dtype)
    if min(shape, default=0) < 0 or entry.start + entry.num_bytes != info.file_size:
        sizes = quoted(shape)
        raise InputError(f"{where} must have as many bytes as {dtype} of shape {sizes}, got {info.file_size:,}.")
    return entry


def _read(archive: zipfile.ZipFile, entry: _Entry) -> NDArray[Any]:
    content = bytearray(entry.num_bytes)
    with archive.open(entry.info) as file:
        file.read(entry.start)
        for at in range(0, len(content), _CHUNK_BYTES):
            piece = file.read(min(_CHUNK_BYTES, len(content) - at))
            content[at : at + len(piece)] = piece
        # With nothing left, the checksum is compared.
        file.read(1)
    shape = entry.shape[::-1] if entry.is_fortran else entry.shape
    array = np.frombuffer(content, entry.dtype).reshape(shape)
    array = array.T if entry.is_fortran else array
    return array.astype(entry.dtype.newbyteorder("="), copy=False)
