"""Arrays of networks that are only timed: parts of one shared array, whatever their values."""

import math

from planner.runtime.c.constants import Array
from planner.schema import Precision

POOL = "probe_weights"

_FLOAT_BYTES = 4


class NumberPool:
    """Arrays of one network, one after the other from the beginning of the pool on.

    So the network reads as many different bytes as if they were its own, in the same order: caches hold no more of
    them. Read as int8, floats are arbitrary numbers.

    Args:
        precision: Precision of the weights of layers: float32 or int8.
        alignment: Multiple of 4 bytes at which arrays begin.
    """

    def __init__(self, precision: Precision, alignment: int) -> None:
        self._matrix_bytes = 1 if precision == "int8" else _FLOAT_BYTES
        self._alignment = alignment
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Size of all arrays so far [bytes]."""
        return self._num_bytes

    def floats(self, name: str, values: Array) -> str:
        """Take floats and return the expression of their address."""
        return self._take(values.size * _FLOAT_BYTES)

    def linear(
        self, name: str, matrix: Array, bias: Array | None = None, row_parts: int = 1, column_parts: int = 1
    ) -> str:
        """Take a layer's arrays and return the initialiser of its struct; panels change nothing in their sizes."""
        num_outputs, num_inputs = matrix.shape
        outputs = num_outputs * _FLOAT_BYTES
        scale = self._take(outputs) if self._matrix_bytes < _FLOAT_BYTES else "NULL"
        weights = self._take(matrix.size * self._matrix_bytes)
        bias_address = "NULL" if bias is None else self._take(outputs)
        return f"{{{weights}, {scale}, {bias_address}, {num_inputs}, {num_outputs}}}"

    def _take(self, num_bytes: int) -> str:
        address = f"{POOL} + {self._num_bytes // _FLOAT_BYTES}"
        self._num_bytes += math.ceil(num_bytes / self._alignment) * self._alignment
        return address
