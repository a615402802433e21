"""Readers of files that others wrote: regular files alone, up to a ceiling; each failure is one sentence with the path.

A device or a pipe in place of a file may never end, and one that declares a small size may hold more than any memory.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from planner.errors import InputError

# Many times the profile of a large model with a thousand classes.
MAX_TEXT_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file to be read; an OSError while it is read counts as one of opening it.

    Raises:
        InputError: If there is none, or it cannot be read.
    """
    try:
        # Without waiting for whoever writes into a pipe; it makes no difference to regular files.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise InputError(f"{path}: must be a file, got a folder.")
            if not stat.S_ISREG(mode):
                raise InputError(f"{path}: must be a regular file, got a device or a pipe.")
            yield file
    except FileNotFoundError:
        hint = "; standard input is not read: write it to a file first" if str(path) == "-" else ""
        raise InputError(f"{path}: no such file{hint}.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: must be a file, got a folder.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    # A path with a NUL is a ValueError to Python.
    except ValueError as error:
        if isinstance(error, UnicodeError) or "null" not in str(error):
            raise
        raise InputError(f"{path}: must be a path, got one with a NUL in it.") from None


def read_content(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes.

    Raises:
        InputError: If it cannot be read, or holds more than `max_bytes`.
    """
    with open_file(path) as file:
        # What is stated may be wrong, as of the files of /proc, or become so while the file is read.
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > max_bytes else bytes(read_up_to(file, max_bytes + 1))
    if max(size, len(content)) > max_bytes:
        raise InputError(f"{path}: must have at most {max_bytes:,} bytes, got {max(size, len(content)):,}.")
    return content


def read_up_to(file: IO[bytes], max_bytes: int) -> bytearray:
    """Return what is left of a file, or its first bytes; memory is taken for what is there, not for the limit."""
    content = bytearray()
    while len(content) < max_bytes and (chunk := file.read(min(_CHUNK_BYTES, max_bytes - len(content)))):
        content += chunk
    return content


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return the content of a text file, without a byte-order mark.

    Raises:
        InputError: If there is no such file, or it cannot be read as text.
    """
    content = read_content(path, max_bytes)
    if content.startswith(_GZIP):
        raise InputError(f"{path}: must be text, got a gzip file: unpack it first.")
    if content.startswith(_UTF16):
        raise InputError(f"{path}: must be UTF-8 text, got UTF-16: save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text, byte {error.start} is not.") from None


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, which is read a piece at a time: weights may be larger than the memory left.

    Raises:
        InputError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def is_file(path: Path) -> bool:
    """Return whether there is a file at a path, which may be none at all: too long, or with a NUL in it."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
