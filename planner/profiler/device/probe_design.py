"""Design of the probes: networks of full depth in all embed widths, few enough to be timed in minutes.

A block that is timed alone, or among identical ones, is faster than among others: its weights stay in the cache. So
probes have full depth, and their blocks differ. Half are drawn as sub-models might be; the others are selected from
many random draws of leaner ones by a sequential D-optimal design: each is the one whose time adds most information
about the parameters of the latency model, in terms of relative error.

Source:
    Fedorov, Theory of Optimal Experiments, 1972.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from planner.arrays import Floats, Ints
from planner.network import counts
from planner.network.vit import Shape
from planner.profiler.device.latency_fit import latency_terms

NUM_NETWORKS = 24

CHANNEL_MULTIPLE = 8

_SELECTED_SHARE = 0.5
_DRAWS_PER_WIDTH = 100
_MAX_WEIGHT_BYTES = 96 * 2**20
_FLOAT_BYTES = 4


def fits_small_board(shape: Shape) -> bool:
    """Return whether a device with 512 MB can hold a network, and perhaps a second copy of its weights."""
    return counts.exact(shape).params * _FLOAT_BYTES <= _MAX_WEIGHT_BYTES


def design_probes(
    whole: Shape,
    widths: Sequence[int],
    seed: int,
    num_networks: int = NUM_NETWORKS,
    fits: Callable[[Shape], bool] = fits_small_board,
) -> list[Shape]:
    """Return the networks to time: the embed widths take turns.

    Args:
        whole: Shape of the whole model.
        widths: Embed widths of the networks, the widest first.
        seed: For all random draws.
        num_networks: Number of networks.
        fits: Whether the device can hold a network; halves are emptied at random until it can.
    """
    rng = np.random.default_rng(seed)
    draw = partial(_draw, rng, whole, fits)
    num_selected = round(_SELECTED_SHARE * num_networks)
    drawn = [_reduced_to_fit(rng, replace(whole, embed_dim=widths[0]), fits)]
    drawn += [draw(widths[i % len(widths)], lean=False) for i in range(1, num_networks - num_selected)]
    candidates = {e: [draw(e, lean=True) for _ in range(_DRAWS_PER_WIDTH)] for e in widths}
    max_embed_dim = max(widths)
    rows = {s: _terms(s, max_embed_dim) for s in (*drawn, *(s for of_width in candidates.values() for s in of_width))}
    # No device is known yet: all terms are assumed to matter equally, and a network's time to be their sum.
    max_terms = np.maximum(np.max(list(rows.values()), axis=0), 1)
    rows = {s: row / max_terms / (row / max_terms).sum() for s, row in rows.items()}
    # Fisher information matrix, with a small ridge that keeps it invertible.
    information = 1e-3 * np.eye(len(max_terms)) + sum(np.outer(rows[s], rows[s]) for s in drawn)
    selected: list[Shape] = []
    for i in range(num_networks - num_selected, num_networks):
        inverse = np.linalg.inv(information)
        of_width = candidates[widths[i % len(widths)]]
        # A model with few units may not have enough different networks.
        unused = [s for s in of_width if s not in selected] or of_width
        # The determinant grows by the factor 1 + r' M^-1 r (matrix determinant lemma).
        best = max(unused, key=lambda s: float(rows[s] @ inverse @ rows[s]))
        selected.append(best)
        information += np.outer(rows[best], rows[best])
    return [*drawn, *selected]


def _draw(rng: np.random.Generator, whole: Shape, fits: Callable[[Shape], bool], embed_dim: int, lean: bool) -> Shape:
    """Draw a network whose halves differ in size; a lean one is smaller, with some halves empty."""
    multiple = min(CHANNEL_MULTIPLE, whole.hidden_dim[0])
    heads = _sizes(rng, whole.depth, whole.num_heads[0], lean)
    channels = multiple * _sizes(rng, whole.depth, whole.hidden_dim[0] // multiple, lean)
    sizes = tuple(heads.tolist()), tuple(channels.tolist())
    drawn = replace(whole, embed_dim=embed_dim, num_heads=sizes[0], hidden_dim=sizes[1])
    return _reduced_to_fit(rng, drawn, fits)


def _sizes(rng: np.random.Generator, depth: int, max_units: int, lean: bool) -> Ints:
    """Draw the number of units of each block, (L,).

    Even a lean network keeps some: leaving out one unlike all others would make its prediction an extrapolation.
    """
    min_limit = max(1, max_units // 4) if lean else (max_units + 1) // 2
    sizes = rng.integers(0, rng.integers(min_limit, max_units, endpoint=True), depth, endpoint=True)
    return np.asarray(sizes * (rng.random(depth) > rng.uniform(0, 0.5))) if lean else sizes


def _reduced_to_fit(rng: np.random.Generator, shape: Shape, fits: Callable[[Shape], bool]) -> Shape:
    """Return the network with random halves emptied until the device can hold it."""
    heads, channels = list(shape.num_heads), list(shape.hidden_dim)
    for i in rng.permutation(2 * shape.depth):
        if fits(shape):
            break
        half = heads if i < shape.depth else channels
        half[i % shape.depth] = 0
        shape = replace(shape, num_heads=tuple(heads), hidden_dim=tuple(channels))
    return shape


def _terms(shape: Shape, max_embed_dim: int) -> Floats:
    return latency_terms(shape.embed_dim, shape.num_heads, shape.hidden_dim, max_embed_dim)
