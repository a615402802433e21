"""The latency model fitted to timed networks: robust, for all embed widths at once.

    T = fixed(e) + sum over blocks of ([h > 0] attention(e) + head(e) h + [c > 0] mlp(e) + channel(e) c)

Each of the five coefficients is affine in the embed dim, u + v e / E with u, v >= 0: every part of a block reads or
writes tensors one of whose sides is e, or does not know e at all. So ten numbers hold for all widths.

Legend: n networks, e embed dim, E the largest of them, h heads and c hidden channels of a block, T time [us].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from planner.schema import LatencyRow, Precision

# Error that no fit is better than: a residual of twice the others' (or of this) counts half.
_LEAST_SCALE = 0.005
_HALF_WEIGHT = 2.0
_ITERATIONS = 30

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Timed:
    """A network, heads and hidden channels of each block, and the time [us] of one image."""

    embed_dim: int
    num_heads: tuple[int, ...]
    hidden_dim: tuple[int, ...]
    time_us: float


@dataclass(frozen=True)
class Fit:
    """The latency model of a device: parameters, and how far held-out networks were from it.

    Attributes:
        largest: E, the embed dim that the slopes refer to.
        constant: u of fixed, attention, head, mlp, channel [us].
        slope: v of the same [us].
        residuals: log(predicted / timed) of each network (n,).
        held_out: The same by the fit to all other networks (n,).
    """

    largest: int
    constant: Array
    slope: Array
    residuals: Array
    held_out: Array

    @property
    def errors(self) -> Array:
        """|predicted / timed - 1| of each held-out network, (n,)."""
        return np.abs(np.expm1(self.held_out))

    @property
    def mape(self) -> float:
        """The mean of the errors."""
        return float(self.errors.mean())

    @property
    def p95_error(self) -> float:
        """The error that one network in twenty exceeds."""
        return float(np.quantile(self.errors, 0.95))

    def row(self, embed_dim: int, precision: Precision, source: str) -> LatencyRow:
        """Return the coefficients at one embed dim."""
        at_width = self.constant + self.slope * embed_dim / self.largest
        fixed, attention, head, mlp, channel = np.round(at_width, 4).tolist()
        return LatencyRow(
            embed_dim=embed_dim,
            precision=precision,
            fixed_us=fixed,
            attention_us=attention,
            head_us=head,
            mlp_us=mlp,
            channel_us=channel,
            mape=round(self.mape, 4),
            p95_error=round(self.p95_error, 4),
            source=source,
        )

    def predict_us(self, embed_dim: int, num_heads: Sequence[int], hidden_dim: Sequence[int]) -> float:
        """Return the time [us] of a network."""
        at_width = self.constant + self.slope * embed_dim / self.largest
        return float(_counts(num_heads, hidden_dim) @ at_width)


def fit_latency(timed: Sequence[Timed]) -> Fit:
    """Fit the model to all networks, and to all but each one to see how well it foretells that one."""
    largest = max(t.embed_dim for t in timed)
    rows = np.array([_terms(t, largest) for t in timed])
    times = np.array([t.time_us for t in timed])
    held_out = np.empty(len(timed))
    for i in range(len(timed)):
        others = np.arange(len(timed)) != i
        held_out[i] = _log_ratio(rows[i : i + 1] @ _solve(rows[others], times[others]), times[i : i + 1])[0]
    solution = _solve(rows, times)
    return Fit(largest, solution[:5], solution[5:], _log_ratio(rows @ solution, times), held_out)


def terms(embed_dim: int, num_heads: Sequence[int], hidden_dim: Sequence[int], largest: int) -> Array:
    """Return what the parameters of a network's time are multiplied with: those of u, then those of v, (10,)."""
    counts = _counts(num_heads, hidden_dim)
    return np.concatenate([counts, counts * (embed_dim / largest)])


def num_parameters(timed: Sequence[Timed]) -> int:
    """Return how many parameters these networks can tell apart."""
    largest = max(t.embed_dim for t in timed)
    return int(np.linalg.matrix_rank(np.array([_terms(t, largest) for t in timed])))


def _solve(rows: Array, times: Array) -> Array:
    """Return the parameters, none below zero, with the least robust relative error.

    Iteratively reweighted least squares: residuals relative to the model's own times (relative to the measured ones,
    noise would make the model too fast), Cauchy weights, which a wild time hardly moves.
    """
    scale, weights = times, np.ones(len(times))
    solution = np.zeros(rows.shape[1])
    for _ in range(_ITERATIONS):
        by = np.sqrt(weights) / scale
        before, solution = solution, nnls(rows * by[:, None], times * by)[0]
        if np.allclose(before, solution, rtol=1e-5):
            break
        # Not below a twentieth: a network that the model has nearly for nothing must not outweigh all others.
        scale = np.maximum(rows @ solution, times / 20)
        residuals = np.log(times / scale)
        spread = max(1.4826 * float(np.median(np.abs(residuals))), _LEAST_SCALE)
        weights = 1 / (1 + (residuals / (_HALF_WEIGHT * spread)) ** 2)
    return solution


def _log_ratio(predicted: Array, times: Array) -> Array:
    # A fit may give a network no time at all; a nanosecond keeps the logarithm finite.
    ratio: Array = np.log(np.maximum(predicted, 1e-3) / times)
    return ratio


def _terms(timed: Timed, largest: int) -> Array:
    return terms(timed.embed_dim, timed.num_heads, timed.hidden_dim, largest)


def _counts(num_heads: Sequence[int], hidden_dim: Sequence[int]) -> Array:
    """Return what the coefficients are multiplied with: 1, halves with heads, heads, halves with channels, channels."""
    halves = sum(h > 0 for h in num_heads), sum(c > 0 for c in hidden_dim)
    return np.array([1, halves[0], sum(num_heads), halves[1], sum(hidden_dim)], dtype=float)
