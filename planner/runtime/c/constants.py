"""Constants of generated C files: arrays of numbers, and layers whose weights lie in panels.

Legend: O outputs of a layer, I inputs.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.schema import Precision

Array: TypeAlias = NDArray[Any]

# As VIT_PANEL of kernels.h.
PANEL = 32
_MAX_INT8 = 127
_PER_LINE = 12


class Definitions(Protocol):
    """Arrays of a network, by the expressions that stand for them in C."""

    def floats(self, name: str, values: Array) -> str:
        """Define an array of floats and return its expression."""

    def linear(
        self, name: str, matrix: Array, bias: Array | None = None, row_parts: int = 1, column_parts: int = 1
    ) -> str:
        """Define a layer's arrays and return the initialiser of its struct; see `Constants.linear`."""


class Constants:
    """Arrays that are defined with their values, in the order in which they were asked for.

    Args:
        precision: Precision of the weights of layers: float32 or int8.

    Raises:
        InputError: If it is another precision.
    """

    def __init__(self, precision: Precision) -> None:
        if precision not in ("float32", "int8"):
            raise InputError(f"The C engine has weights of float32 and int8, got precision {precision!r}.")
        self._is_int8 = precision == "int8"
        self._definitions: list[str] = []

    @property
    def text(self) -> str:
        """All definitions."""
        return "\n".join(self._definitions)

    def floats(self, name: str, values: Array) -> str:
        """Define an array of floats and return its name.

        Raises:
            InputError: If a value is not finite.
        """
        if not np.isfinite(values).all():
            raise InputError(f"{name}: all values must be finite, got nan or inf; retrain the network.")
        self._define("float", name, [_literal(value) for value in np.asarray(values, np.float32).ravel().tolist()])
        return name

    def linear(
        self, name: str, matrix: Array, bias: Array | None = None, row_parts: int = 1, column_parts: int = 1
    ) -> str:
        """Define a layer's arrays and return the initialiser of its struct.

        Args:
            name: Beginning of the arrays' names.
            matrix: Weights (O, I).
            bias: Bias (O,).
            row_parts: Number of layers that the outputs are divided among: panels end with each.
            column_parts: Number of layers that the inputs are divided among, whose outputs are to be added.

        Raises:
            InputError: If a value is not finite.
        """
        scale_name = bias_name = "NULL"
        if self._is_int8:
            matrix, scale = quantised_rows(matrix)
            scale_name = self.floats(f"{name}_scale", scale)
        columns = [part for rows in np.split(matrix, row_parts) for part in np.split(rows, column_parts, axis=1)]
        weights = np.concatenate([in_panels(part) for part in columns])
        if self._is_int8:
            self._define("int8_t", f"{name}_weight", [str(weight) for weight in weights.tolist()])
        else:
            self.floats(f"{name}_weight", weights)
        if bias is not None:
            bias_name = self.floats(f"{name}_bias", bias)
        num_outputs, num_inputs = matrix.shape
        return f"{{{name}_weight, {scale_name}, {bias_name}, {num_inputs}, {num_outputs}}}"

    def _define(self, c_type: str, name: str, literals: Sequence[str]) -> None:
        lines = [", ".join(literals[i : i + _PER_LINE]) for i in range(0, len(literals), _PER_LINE)]
        body = ",\n    ".join(lines)
        self._definitions.append(f"static const VIT_ALIGNED {c_type} {name}[{len(literals)}] = {{\n    {body}}};\n")


def in_panels(matrix: Array) -> Array:
    """Return the weights (O, I) of a layer as the engine reads them: panel by panel, each input's outputs together."""
    return np.concatenate([matrix[first : first + PANEL].T.ravel() for first in range(0, len(matrix), PANEL)])


def quantised_rows(matrix: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights (O, I) in int8, and the scale (O,) that makes them weights again: symmetric, one for each output.

    Raises:
        InputError: If a weight is not finite.
    """
    largest = np.abs(matrix).max(axis=1)
    if not np.isfinite(largest).all():
        raise InputError("Weights to quantise must be finite, got nan or inf; retrain the network.")
    scale = np.where(largest > 0, largest / _MAX_INT8, 1).astype(np.float32)
    # A subnormal scale may be rounded down.
    rounded = np.clip(np.rint(matrix / scale[:, None]), -_MAX_INT8, _MAX_INT8)
    return rounded.astype(np.int8), scale


def _literal(value: float) -> str:
    """Return a C literal from which a float32 comes back as it was."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
