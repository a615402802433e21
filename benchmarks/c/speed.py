"""Times of sub-models in C and in ONNX Runtime on this machine, one thread each, in turns."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.network.export import INPUT, export_onnx, quantise_int8
from planner.network.vit import VisionTransformer
from planner.runtime.c.generate import model_files
from planner.runtime.c.host import HostModel
from planner.runtime.device.session import open_session
from planner.schema import ImageInput, Precision

# Turns of each engine: what disturbs one disturbs the other.
ROUNDS = 9
_MIN_ROUND_S = 0.1


@dataclass(frozen=True)
class Speed:
    """Median time of one image [us] in each engine."""

    onnxruntime_us: float
    c_us: float


def compared(network: VisionTransformer, image: ImageInput, precision: Precision) -> Speed:
    """Time a network in both engines at a precision."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, *image.shape)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder, HostModel(model_files(network, image, precision)) as model:
        session = open_session(_graph(network, image, precision, Path(folder)))
        engines: list[Callable[[NDArray[Any]], object]] = [
            lambda sent: session.run(None, {INPUT: sent}),
            model.features,
        ]
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for engine, of_engine in zip(engines, times, strict=True):
                of_engine.append(_round_us(engine, pixels))
    return Speed(*(statistics.median(of_engine) for of_engine in times))


def _graph(network: VisionTransformer, image: ImageInput, precision: Precision, folder: Path) -> Path:
    export_onnx(network, folder / "float32.onnx", image)
    if precision == "float32":
        return folder / "float32.onnx"
    quantise_int8(folder / "float32.onnx", folder / "int8.onnx")
    return folder / "int8.onnx"


def _round_us(engine: Callable[[NDArray[Any]], object], pixels: NDArray[Any]) -> float:
    """Return the median time of one image in a round [us]."""
    engine(pixels)
    times: list[float] = []
    end = time.perf_counter() + _MIN_ROUND_S
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        engine(pixels)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)
