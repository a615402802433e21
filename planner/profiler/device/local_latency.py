"""Latency table of this machine: probes of many sizes, timed with torch.

One thread, one image. The probes are those of `planner.profiler.device.probe_design`, their times the shortest of
several rounds over all of them, the model that of `planner.profiler.device.latency_fit`.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from planner.network.vit import Shape, VisionTransformer
from planner.profiler.device.latency_fit import TimedNetwork, fit_latency
from planner.profiler.device.probe_design import NUM_NETWORKS, design_probes
from planner.schema import LatencyRow

KIND = "local"

_ROUNDS = 7
_SECONDS_PER_ROUND = 0.02


def measure_local_latency(
    whole: Shape, widths: Sequence[int], seed: int, on_timing: Callable[[], None] = lambda: None
) -> list[LatencyRow]:
    """Time probes on this machine, and fit the rows of the latency table, one for each embed width.

    Args:
        whole: Shape of the whole model.
        widths: Embed widths to time and to return rows for, the whole model's among them.
        seed: For the probes' sizes.
        on_timing: Called after each timing, `num_timings` times.
    """
    shapes = design_probes(whole, widths, seed)
    # Rounds over all probes, not one probe after the other: a slow moment affects them all.
    best = np.full(len(shapes), np.inf)
    models = [VisionTransformer(shape).eval() for shape in shapes]
    image = torch.zeros(1, whole.in_channels, whole.image_size, whole.image_size)
    for _ in range(_ROUNDS):
        for i, model in enumerate(models):
            best[i] = min(best[i], _shortest_us(model, image))
            on_timing()
    timed = [
        TimedNetwork(s.embed_dim, s.num_heads, s.hidden_dim, float(us)) for s, us in zip(shapes, best, strict=True)
    ]
    source = f"measured: torch {torch.__version__}, 1 thread, {len(timed)} networks, the shortest of {_ROUNDS} rounds"
    fitted = fit_latency(timed)
    return [fitted.row(embed_dim, "float32", source) for embed_dim in widths]


def num_timings() -> int:
    """Return how many timings `measure_local_latency` makes."""
    return _ROUNDS * NUM_NETWORKS


def shortest_time_us(model: VisionTransformer, image: torch.Tensor) -> float:
    """Return the shortest time [us] of one image over several rounds."""
    return min(_shortest_us(model, image) for _ in range(_ROUNDS))


def _shortest_us(model: VisionTransformer, image: torch.Tensor) -> float:
    shortest, until = float("inf"), time.perf_counter() + _SECONDS_PER_ROUND
    with torch.inference_mode():
        # At least once, even if the time is up before the first run.
        while shortest == float("inf") or time.perf_counter() < until:
            start = time.perf_counter()
            model.features(image)
            shortest = min(shortest, time.perf_counter() - start)
    return shortest * 1e6
