"""Latency table of this machine: probes of many sizes, timed in ONNX Runtime, or in torch where that is not installed.

One thread, one image. The probes are those of `planner.profiler.device.probe_design`, their times the shortest of
several rounds over all of them, the model that of `planner.profiler.device.latency_fit`. In ONNX Runtime, probes are
exported as sub-models are: their input is an image of bytes.
"""

import importlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from planner.network.export import INPUT, export_onnx
from planner.network.vit import Shape, VisionTransformer
from planner.profiler.device.latency_fit import TimedNetwork, fit_latency
from planner.profiler.device.probe_design import design_probes
from planner.schema import ImageInput, LatencyRow, Preprocessing

KIND = "local"

TimingEngine = Literal["onnxruntime", "torch"]

_ROUNDS = 7
_SECONDS_PER_ROUND = 0.02


def timing_engine() -> TimingEngine:
    """Return the engine that sub-models are timed in: ONNX Runtime if the deploy extra is there, else torch."""
    needed = ("onnx", "onnxscript", "onnxruntime")
    return "onnxruntime" if all(importlib.util.find_spec(name) for name in needed) else "torch"


def measure_local_latency(
    whole: Shape, widths: Sequence[int], seed: int, on_step: Callable[[int, int], None] = lambda done, total: None
) -> list[LatencyRow]:
    """Time probes on this machine, and fit the rows of the latency table, one for each embed width.

    Args:
        whole: Shape of the whole model.
        widths: Embed widths to time and to return rows for, the whole model's among them.
        seed: For the probes' sizes.
        on_step: Called with the steps that are done, and all of them.
    """
    shapes, engine = design_probes(whole, widths, seed), timing_engine()
    models = [VisionTransformer(shape).eval() for shape in shapes]
    best = shortest_times_us(models, engine, on_step)
    timed = [
        TimedNetwork(s.embed_dim, s.num_heads, s.hidden_dim, float(us)) for s, us in zip(shapes, best, strict=True)
    ]
    source = f"measured: {engine} {_version(engine)}, 1 thread, {len(timed)} networks, the shortest of {_ROUNDS} rounds"
    fitted = fit_latency(timed)
    return [fitted.row(embed_dim, "float32", "onnxruntime", source) for embed_dim in widths]


def shortest_times_us(
    models: Sequence[VisionTransformer],
    engine: TimingEngine,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """Return the shortest time [us] of one image in each network, over several rounds.

    Args:
        models: Networks to time.
        engine: Engine to time them in.
        on_step: Called with the steps that are done, and all of them: networks made ready, then timings.
    """
    total = (1 + _ROUNDS) * len(models)
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for i, model in enumerate(models):
            runs.append(_ready(model, engine, Path(folder, f"{i}.onnx")))
            on_step(len(runs), total)
        best = [float("inf")] * len(models)
        # Rounds over all networks, not one network after the other: a slow moment affects them all.
        for number in range(_ROUNDS * len(models)):
            i = number % len(models)
            best[i] = min(best[i], _shortest_us(runs[i]))
            on_step(len(models) + number + 1, total)
    return best


def _ready(model: VisionTransformer, engine: TimingEngine, path: Path) -> Callable[[], object]:
    """Return a function that runs a network on one image."""
    s = model.shape
    if engine == "torch":
        image = torch.zeros(1, s.in_channels, *s.image_sides)
        return lambda: model.features(image)
    # Within the function: the script ends where onnxruntime is not installed.
    from planner.profiler.device.probe_script import open_session

    channels = (0.5,) * s.in_channels
    pixels = ImageInput(
        shape=(s.in_channels, *s.image_sides),
        dtype="uint8",
        preprocessing=Preprocessing(mean=channels, std=channels),
    )
    export_onnx(model, path, pixels)
    session = open_session(path, threads=1)
    feed = {INPUT: np.zeros((1, *pixels.shape), np.uint8)}
    return lambda: session.run(None, feed)


def _shortest_us(run: Callable[[], object]) -> float:
    shortest, until = float("inf"), time.perf_counter() + _SECONDS_PER_ROUND
    with torch.inference_mode():
        # At least once, even if the time is up before the first run.
        while shortest == float("inf") or time.perf_counter() < until:
            start = time.perf_counter()
            run()
            shortest = min(shortest, time.perf_counter() - start)
    return shortest * 1e6


def _version(engine: TimingEngine) -> str:
    module: Any = importlib.import_module(engine)
    return str(module.__version__)
