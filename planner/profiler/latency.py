"""The latency table of this machine: timed blocks, a linear model, its held-out error.

One thread, one image, torch. Networks whose blocks all have h heads and c channels are timed,
and a few with random blocks of their own, since a block timed among its equals is faster than
among others (its weights stay in the cache). The coefficients of the profile are fitted to the
shortest times, by least squares on the relative error, none below zero.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from planner.network.vit import Shape, VisionTransformer
from planner.schema import LatencyRow

KIND = "local"

_ROUNDS = 7
_SECONDS_PER_ROUND = 0.02
_NUM_RANDOM = 16


@dataclass(frozen=True)
class Timed:
    """A network and the time [us] of one image."""

    shape: Shape
    time_us: float


def measure(whole: Shape, seed: int, on_probe: Callable[[], None] = lambda: None) -> LatencyRow:
    """Time networks of many sizes on this machine, and fit the row of the latency table."""
    shapes = probe_shapes(whole, seed)
    # Rounds over all networks, not one network after the other: a slow moment hits them all.
    best = np.full(len(shapes), np.inf)
    models = [VisionTransformer(shape).eval() for shape in shapes]
    image = torch.zeros(1, whole.in_channels, whole.image_size, whole.image_size)
    for _ in range(_ROUNDS):
        for i, model in enumerate(models):
            best[i] = min(best[i], _shortest_us(model, image))
            on_probe()
    return fit([Timed(shape, float(us)) for shape, us in zip(shapes, best, strict=True)])


def num_probes(whole: Shape) -> int:
    """Return how often `measure` calls back."""
    return _ROUNDS * len(probe_shapes(whole, 0))


def probe_shapes(whole: Shape, seed: int) -> list[Shape]:
    """Return the networks to time: a grid of equal blocks, and random ones."""
    most_heads, most_channels = whole.num_heads[0], whole.hidden_dim[0]
    heads = sorted({0, 1, most_heads // 2, most_heads})
    channels = sorted({0, most_channels // 16, most_channels // 4, most_channels // 2, most_channels})
    shapes = [
        replace(whole, num_heads=(h,) * whole.depth, hidden_dim=(c,) * whole.depth) for h in heads for c in channels
    ]
    rng = np.random.default_rng(seed)
    for _ in range(_NUM_RANDOM):
        drawn_heads = rng.integers(0, most_heads + 1, whole.depth).tolist()
        drawn_channels = rng.integers(0, most_channels + 1, whole.depth).tolist()
        shapes.append(replace(whole, num_heads=tuple(drawn_heads), hidden_dim=tuple(drawn_channels)))
    return shapes


def fit(timed: list[Timed]) -> LatencyRow:
    """Fit fixed + sum_l ([h>0] attention + head h + [c>0] mlp + channel c), and say how well it holds.

    The error is held out: each fifth of the networks is predicted from the other four.
    """
    rows = np.array([_terms(t.shape) for t in timed], dtype=float)
    times = np.array([t.time_us for t in timed])
    errors = np.empty(len(timed))
    for fold in range(5):
        held = np.arange(len(timed)) % 5 == fold
        predicted = rows[held] @ _coefficients(rows[~held], times[~held])
        errors[held] = np.abs(predicted / times[held] - 1)
    fixed, attention, head, mlp, channel = np.round(_coefficients(rows, times), 4).tolist()
    return LatencyRow(
        embed_dim=timed[0].shape.embed_dim,
        fixed_us=fixed,
        attention_us=attention,
        head_us=head,
        mlp_us=mlp,
        channel_us=channel,
        mape=round(float(errors.mean()), 4),
        p95_error=round(float(np.quantile(errors, 0.95)), 4),
        source=f"measured: torch {torch.__version__}, 1 thread, the shortest of {_ROUNDS} rounds",
    )


def time_us(model: VisionTransformer, image: torch.Tensor) -> float:
    """Return the shortest time [us] of one image over several rounds."""
    return min(_shortest_us(model, image) for _ in range(_ROUNDS))


def _coefficients(rows: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    solution: NDArray[np.float64] = nnls(rows / times[:, None], np.ones(len(times)))[0]
    return solution


def _terms(shape: Shape) -> tuple[int, ...]:
    heads, channels = shape.num_heads, shape.hidden_dim
    return 1, sum(h > 0 for h in heads), sum(heads), sum(c > 0 for c in channels), sum(channels)


def _shortest_us(model: VisionTransformer, image: torch.Tensor) -> float:
    shortest, until = float("inf"), time.perf_counter() + _SECONDS_PER_ROUND
    with torch.inference_mode():
        while time.perf_counter() < until:
            start = time.perf_counter()
            model.features(image)
            shortest = min(shortest, time.perf_counter() - start)
    return shortest * 1e6
