"""Predicted compute of kind `local` beside measured, on random sub-models that the prediction was not made with."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.memory.measure import DIGITS, TINY, random_sub_models, write
from benchmarks.runtime.progress import OnStep
from planner.network.export import INPUT
from planner.network.vit import Shape
from planner.profiler.device.local_latency import measure_local_latency
from planner.rules.compute_time import measured_time
from planner.runtime.device.session import open_session

WHOLES = {"digits-vit": DIGITS, "ViT-Tiny": TINY}
_MIN_RUNS, _MIN_S = 50, 1.0


@dataclass(frozen=True)
class Computed:
    """Compute time of one sub-model [us]."""

    model: str
    shape: Shape
    predicted: float
    p10: float
    p50: float

    @property
    def error(self) -> float:
        """Prediction relative to the measured median, less 1."""
        return self.predicted / self.p50 - 1


def measure(name: str, count: int, seed: int, on_step: OnStep) -> list[Computed]:
    """Return predicted and measured compute of random sub-models of a whole model."""
    whole = WHOLES[name]
    shapes = random_sub_models(whole, count, seed)
    on_step(f"latency table of {name}", 0, 1)
    rows = measure_local_latency(whole, sorted({s.embed_dim for s in shapes} | {whole.embed_dim}), seed + 1)
    by_width = {row.embed_dim: measured_time(row, len(whole.num_heads)) for row in rows}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for i, shape in enumerate(shapes):
            on_step(f"sub-models of {name}", i, count)
            predicted = by_width[shape.embed_dim].compute_us(shape.num_heads, shape.hidden_dim)
            times = _times_us(write(shape, Path(folder, f"{i}.onnx")))
            p10, p50 = np.percentile(times, (10, 50))
            found.append(Computed(name, shape, predicted, float(p10), float(p50)))
    return found


def _times_us(path: Path) -> list[float]:
    """Return the times of single images [us]."""
    session = open_session(path)
    (value,) = session.get_inputs()
    image = np.full((1, *value.shape[1:]), 0.5, np.float32)
    session.run(None, {INPUT: image})
    times: list[float] = []
    until = time.monotonic() + _MIN_S
    while len(times) < _MIN_RUNS or time.monotonic() < until:
        began = time.perf_counter()
        session.run(None, {INPUT: image})
        times.append((time.perf_counter() - began) * 1e6)
    return times
