"""Instructions of random sub-models on a Cortex-M7, and how well the planner's latency model tells them.

Counted by qemu, they have no noise: what is off is the model's form.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.c.cores import CORES, measure
from planner.network.vit import Shape, VisionTransformer
from planner.profiler.device.latency_fit import LastBlock, TimedNetwork, fit_latency
from planner.runtime.c.generate import model_files
from planner.schema import ImageInput, Precision

_CORE = next(core for core in CORES if core.name == "Cortex-M7")


@dataclass(frozen=True)
class ModelErrors:
    """Errors of the latency model as shares: mean and largest, of sub-models that were held out one by one."""

    mean: float
    largest: float


def model_errors(shapes: Sequence[Shape], image: ImageInput, precision: Precision) -> ModelErrors:
    """Count the instructions of sub-models of one embed dim, and predict each from all others."""
    counted = [_instructions(shape, image, precision) for shape in shapes]
    timed = [TimedNetwork(s.embed_dim, s.num_heads, s.hidden_dim, n) for s, n in zip(shapes, counted, strict=True)]
    whole = shapes[0]
    fitted = fit_latency(timed, LastBlock(whole.num_tokens, whole.num_pooled_tokens, whole.head_dim))
    return ModelErrors(fitted.mape, float(fitted.errors.max()))


def random_shapes(whole: Shape, embed_dim: int, count: int, seed: int) -> list[Shape]:
    """Return shapes of sub-models that keep some heads and channels, these in groups of eight."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        heads = rng.integers(0, np.array(whole.num_heads) + 1)
        heads[-1] = max(1, heads[-1])
        channels = 8 * rng.integers(0, np.array(whole.hidden_dim) // 16 + 1)
        shapes.append(replace(whole, embed_dim=embed_dim, num_heads=_ints(heads), hidden_dim=_ints(channels)))
    return shapes


def _ints(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _instructions(shape: Shape, image: ImageInput, precision: Precision) -> int:
    files = model_files(VisionTransformer(shape).eval(), image, precision)
    pixels = np.full((1, *image.shape), 7, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        # Weights do not change the number of instructions, and features are not looked at.
        return measure(_CORE, files, pixels, np.ones((1, shape.embed_dim), np.float32), Path(folder)).instructions
