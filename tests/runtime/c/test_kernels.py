"""Kernels of the engine, one by one, against scipy in double precision."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr, softmax

from planner.runtime.c.files import engine_files
from tests.helpers.c_models import c_compiler

FLAGS = ("-std=gnu99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
Reference = Callable[[NDArray[np.float64]], NDArray[np.float64]]
# In the order of vit_activation.
ACTIVATIONS: dict[str, Reference] = {
    "gelu": lambda x: x * np.exp(log_ndtr(x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * expit(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * expit(x),
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Compiled kernels, loaded into this process."""
    folder = tmp_path_factory.mktemp("kernels")
    for name, text in engine_files().items():
        (folder / name).write_text(text)
    library: Path = folder / "kernels.so"
    subprocess.run([c_compiler(), *FLAGS, "-o", library, "kernels.c", "-lm"], cwd=folder, check=True)
    return ctypes.CDLL(str(library))


def pointer(values: NDArray[Any]) -> ctypes.c_void_p:
    """Return the address of an array."""
    return ctypes.c_void_p(values.ctypes.data)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(kernels: ctypes.CDLL, name: str) -> None:
    """Activations are within 2e-7 of what is exact, and of the value itself where that is above 1."""
    sizes = np.logspace(-40, 15, 4001)
    x = np.concatenate([np.linspace(-30, 30, 200_001), sizes, -sizes, [0.0]]).astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        expected = ACTIVATIONS[name](x.astype(np.float64))
    kernels.vit_activate(list(ACTIVATIONS).index(name), ctypes.c_size_t(len(x)), pointer(x))
    assert (np.abs(x - expected) <= 2e-7 * np.maximum(1, np.abs(expected))).all()


def test_activations_of_any_length(kernels: ctypes.CDLL) -> None:
    """Each number of values is computed to the last and not beyond, whatever the width of vectors."""
    for length in range(40):
        x = np.full(length + 1, -2, np.float32)
        kernels.vit_activate(list(ACTIVATIONS).index("relu"), ctypes.c_size_t(length), pointer(x))
        assert x.tolist() == [0] * length + [-2]


@pytest.mark.parametrize("scale", [0, 1, 1e4, 1e30])
def test_softmax(kernels: ctypes.CDLL, scale: float) -> None:
    """Scores of any size and number become shares whose sum is 1."""
    rng = np.random.default_rng(0)
    for length in (1, 2, 15, 16, 17, 197):
        x = (scale * rng.standard_normal(length)).astype(np.float32)
        expected = softmax(x.astype(np.float64))
        kernels.vit_softmax(ctypes.c_size_t(length), pointer(x))
        np.testing.assert_allclose(x, expected, atol=3e-7)
        assert x.sum() == pytest.approx(1, abs=1e-5)
