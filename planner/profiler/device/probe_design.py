"""Which networks to time: of whole depth, in all embed widths, so few that they can be timed in minutes.

A block that is timed alone, or among its equals, is faster than among others: its weights stay in the cache. So the
networks have the whole depth, and no two blocks need be alike. Half are drawn as sub-models might be; the others are
chosen out of many draws of leaner ones, each the one whose time would tell most about the parameters of
the latency model (D-optimal, one after the other, the relative error being what counts).

Source:
    Fedorov, Theory of Optimal Experiments, 1972.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.network import counts
from planner.network.vit import Shape
from planner.profiler.device.latency_fit import terms

NUM_NETWORKS = 24

CHANNEL_MULTIPLE = 8

_CHOSEN_SHARE = 0.5
_DRAWS_PER_WIDTH = 100
# A device with 512 MB must hold the network, and perhaps a second copy of its weights.
_MOST_WEIGHT_BYTES = 96 * 2**20
_FLOAT_BYTES = 4


def design_probes(whole: Shape, widths: Sequence[int], seed: int, num_networks: int = NUM_NETWORKS) -> list[Shape]:
    """Return the networks to time: the embed widths take turns."""
    rng = np.random.default_rng(seed)
    num_chosen = round(_CHOSEN_SHARE * num_networks)
    drawn = [_fitting(rng, whole)]
    drawn += [_draw(rng, whole, widths[i % len(widths)], lean=False) for i in range(1, num_networks - num_chosen)]
    draws = {e: [_draw(rng, whole, e, lean=True) for _ in range(_DRAWS_PER_WIDTH)] for e in widths}
    largest = max(widths)
    rows = {s: _terms(s, largest) for s in (*drawn, *(s for of_width in draws.values() for s in of_width))}
    # No device is known yet: each term is taken to matter alike, a network's time for the sum of its terms.
    most = np.maximum(np.max(list(rows.values()), axis=0), 1)
    rows = {s: row / most / (row / most).sum() for s, row in rows.items()}
    information = 1e-3 * np.eye(len(most)) + sum(np.outer(rows[s], rows[s]) for s in drawn)
    chosen: list[Shape] = []
    for i in range(num_networks - num_chosen, num_networks):
        inverse = np.linalg.inv(information)
        of_width = draws[widths[i % len(widths)]]
        # A model of a few units has no more networks than that.
        left = [s for s in of_width if s not in chosen] or of_width
        best = max(left, key=lambda s: float(rows[s] @ inverse @ rows[s]))
        chosen.append(best)
        information += np.outer(rows[best], rows[best])
    return [*drawn, *chosen]


def _draw(rng: np.random.Generator, whole: Shape, embed_dim: int, lean: bool) -> Shape:
    """Draw a network: its halves up to a size of their own; a lean one is smaller, and some halves are empty."""
    multiple = min(CHANNEL_MULTIPLE, whole.hidden_dim[0])
    heads = _sizes(rng, whole.depth, whole.num_heads[0], lean)
    channels = multiple * _sizes(rng, whole.depth, whole.hidden_dim[0] // multiple, lean)
    sizes = tuple(heads.tolist()), tuple(channels.tolist())
    return _fitting(rng, replace(whole, embed_dim=embed_dim, num_heads=sizes[0], hidden_dim=sizes[1]))


def _sizes(rng: np.random.Generator, depth: int, most: int, lean: bool) -> NDArray[np.int64]:
    """Draw how many units each block has, (L,).

    Lean, but not bare: a network unlike all others would make its held-out error an extrapolation.
    """
    least = max(1, most // 4) if lean else (most + 1) // 2
    sizes = rng.integers(0, rng.integers(least, most, endpoint=True), depth, endpoint=True)
    return np.asarray(sizes * (rng.random(depth) > rng.uniform(0, 0.5))) if lean else sizes


def _fitting(rng: np.random.Generator, shape: Shape) -> Shape:
    """Return a network with half after half emptied until a small device can hold its weights."""
    heads, channels = list(shape.num_heads), list(shape.hidden_dim)
    for i in rng.permutation(2 * shape.depth):
        if counts.exact(shape).params * _FLOAT_BYTES <= _MOST_WEIGHT_BYTES:
            break
        half = heads if i < shape.depth else channels
        half[i % shape.depth] = 0
        shape = replace(shape, num_heads=tuple(heads), hidden_dim=tuple(channels))
    return shape


def _terms(shape: Shape, largest: int) -> NDArray[np.float64]:
    return terms(shape.embed_dim, shape.num_heads, shape.hidden_dim, largest)
