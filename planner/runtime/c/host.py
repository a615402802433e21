"""Generated sub-model, compiled and run on this machine: for checks of what is exported, and for tests."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError, PlannerError
from planner.runtime.c.files import engine_files

HOST_FLAGS = ("-std=gnu99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno")
_SIZES = """\
#include "model.h"
const unsigned long long host_sizes[] = {MODEL_INPUT_BYTES, MODEL_NUM_FEATURES, MODEL_ARENA_BYTES};
"""
# A line of the cache, which wide vectors are read from fastest.
_ALIGNMENT = 64


def find_compiler() -> str:
    """Return the path of the C compiler of this machine: $CC, cc, gcc or clang.

    Raises:
        InputError: If there is none.
    """
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        if path := shutil.which(name):
            return path
    raise InputError("To run C here, a compiler (cc, gcc or clang) must be on the path, got none; install gcc.")


class HostModel:
    """Sub-model in C, compiled for this machine and loaded into this process.

    A context manager; the compiled file is gone at its end.

    Args:
        files: Text of model.h and model.c by their names.

    Raises:
        InputError: If there is no C compiler.
        PlannerError: If it refuses the files.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="planner-c-")
        try:
            self._library = ctypes.CDLL(str(_compile(files, Path(self._folder.name))))
        except BaseException:
            self._folder.cleanup()
            raise
        sizes = (ctypes.c_ulonglong * 3).in_dll(self._library, "host_sizes")
        self._input_bytes, self._num_features, arena_bytes = (int(size) for size in sizes)
        self._arena = _aligned(arena_bytes)

    def __enter__(self) -> "HostModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def features(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features (B, E) of images as they are sent, (B, ch, H, W) of the model's type.

        Raises:
            InputError: If images have another size.
        """
        if images[0].nbytes != self._input_bytes:
            raise InputError(f"An image must have {self._input_bytes} bytes, got {images[0].nbytes}.")
        result = np.empty((len(images), self._num_features), np.float32)
        for image, features in zip(np.ascontiguousarray(images), result, strict=True):
            self._library.model_infer(_address(image), _address(features), _address(self._arena))
        return result


def _compile(files: Mapping[str, str], folder: Path) -> Path:
    """Write all files into a folder, and compile them to a library there."""
    compiler = find_compiler()
    for name, text in {**engine_files(), **files, "sizes.c": _SIZES}.items():
        (folder / name).write_text(text, encoding="utf-8")
    library = folder / "model.so"
    sources = ("kernels.c", "vit.c", "model.c", "sizes.c")
    command = [compiler, *HOST_FLAGS, "-fPIC", "-shared", "-o", library.name, *sources, "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise PlannerError(f"{compiler} could not compile the sub-model: {done.stderr.strip()[-300:]}")
    return library


def _aligned(size: int) -> NDArray[np.uint8]:
    buffer = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size]


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
