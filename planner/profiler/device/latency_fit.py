"""Latency model of a device, fitted to timed networks by robust regression, for all embed widths at once.

    T = fixed(e) + sum over blocks of ([h > 0] attention(e) + head(e) h + [c > 0] mlp(e) + channel(e) c)

Where an engine computes only what is read of the last block, its heads and channels count by their share of the MACs of
others there.

Each of the five coefficients is affine in the embed dim, u + v e / E with u, v >= 0: the tensors that a part of a
block reads and writes have e as a side once, or not at all. So ten parameters suffice for all widths.

Legend: n networks, e embed dim, E the largest of them, h heads and c hidden channels of a block, T time [us].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from planner.arrays import Floats
from planner.schema import Engine, LatencyRow, Precision

# Lower limit of the residuals' spread, so that perfect timings do not make outliers of rounding errors.
_MIN_SPREAD = 0.005
# Residual, as a multiple of the spread, at which a time has half its weight.
_HALF_WEIGHT = 2.0
_ITERATIONS = 30


@dataclass(frozen=True)
class TimedNetwork:
    """Heads and hidden channels of each block of a network, and its time for one image [us]."""

    embed_dim: int
    num_heads: tuple[int, ...]
    hidden_dim: tuple[int, ...]
    time_us: float


@dataclass(frozen=True)
class LastBlock:
    """Last block of networks of which only some tokens are read, and computed.

    The keys and values of all tokens are needed, the queries, scores and outputs of those that are read.
    """

    num_tokens: int
    num_read: int
    head_dim: int

    def head_share(self, embed_dim: int) -> float:
        """Return the MACs of a head as a share of those in another block."""
        N, n, D, E = self.num_tokens, self.num_read, self.head_dim, embed_dim
        return (2 * N * D * E + n * (2 * D * E + 2 * N * D)) / (2 * N * D * E + N * (2 * D * E + 2 * N * D))

    @property
    def channel_share(self) -> float:
        """MACs of a hidden channel as a share of those in another block."""
        return self.num_read / self.num_tokens


@dataclass(frozen=True)
class LatencyFit:
    """Fitted latency model of a device, with its errors.

    Attributes:
        max_embed_dim: E, the embed dim that the slopes refer to.
        constant: u of fixed, attention, head, mlp, channel [us].
        slope: v of the same [us].
        last_block: Last block, where not all of it is computed.
        residuals: log(predicted / timed) of each network (n,).
        held_out: Leave-one-out residuals, the same by the fit to all other networks: of those with a head, if any has
            one, as every sub-model does. Without head or channel a network is all fixed time, and its prediction would
            be an extrapolation.
    """

    max_embed_dim: int
    constant: Floats
    slope: Floats
    last_block: LastBlock | None
    residuals: Floats
    held_out: Floats

    @property
    def errors(self) -> Floats:
        """Leave-one-out errors, |predicted / timed - 1|."""
        return np.abs(np.expm1(self.held_out))

    @property
    def mape(self) -> float:
        """Mean absolute percentage error, as a share."""
        return float(self.errors.mean())

    @property
    def p95_error(self) -> float:
        """95th percentile of the errors: one network in twenty exceeds it."""
        return float(np.quantile(self.errors, 0.95))

    def row(self, embed_dim: int, precision: Precision, engine: Engine, source: str) -> LatencyRow:
        """Return the coefficients at one embed dim as a row of a latency table."""
        coefficients = self._coefficients(embed_dim)
        fixed, attention, head, mlp, channel = np.round(coefficients, 4).tolist()
        last = self.last_block
        return LatencyRow(
            embed_dim=embed_dim,
            precision=precision,
            engine=engine,
            fixed_us=fixed,
            attention_us=attention,
            head_us=head,
            mlp_us=mlp,
            channel_us=channel,
            last_head_us=None if last is None else round(coefficients[2] * last.head_share(embed_dim), 4),
            last_channel_us=None if last is None else round(coefficients[4] * last.channel_share, 4),
            mape=round(self.mape, 4),
            p95_error=round(self.p95_error, 4),
            source=source,
        )

    def predict_us(self, embed_dim: int, num_heads: Sequence[int], hidden_dim: Sequence[int]) -> float:
        """Return the predicted time [us] of a network."""
        return float(_counts(embed_dim, num_heads, hidden_dim, self.last_block) @ self._coefficients(embed_dim))

    def _coefficients(self, embed_dim: int) -> Floats:
        return self.constant + self.slope * embed_dim / self.max_embed_dim


def fit_latency(timed: Sequence[TimedNetwork], last_block: LastBlock | None = None) -> LatencyFit:
    """Fit the model to all networks, and estimate its errors by leave-one-out cross-validation.

    Args:
        timed: The networks with their times.
        last_block: Last block of each, where not all of it is computed.
    """
    max_embed_dim = max(t.embed_dim for t in timed)
    rows = np.array([_terms(t, max_embed_dim, last_block) for t in timed])
    times = np.array([t.time_us for t in timed])
    held_out = []
    for i in [i for i, network in enumerate(timed) if any(network.num_heads)] or range(len(timed)):
        others = np.arange(len(timed)) != i
        held_out.append(float(_log_ratio(rows[i] @ _robust_fit(rows[others], times[others]), times[i])))
    solution = _robust_fit(rows, times)
    residuals = _log_ratio(rows @ solution, times)
    return LatencyFit(max_embed_dim, solution[:5], solution[5:], last_block, residuals, np.array(held_out))


def latency_terms(embed_dim: int, num_heads: Sequence[int], hidden_dim: Sequence[int], max_embed_dim: int) -> Floats:
    """Return a network's row of the design matrix: the factors of u, then those of v, (10,)."""
    counts = _counts(embed_dim, num_heads, hidden_dim, None)
    return _at_width(counts, embed_dim, max_embed_dim)


def num_parameters(timed: Sequence[TimedNetwork]) -> int:
    """Return how many parameters these networks identify: the rank of the design matrix."""
    max_embed_dim = max(t.embed_dim for t in timed)
    return int(np.linalg.matrix_rank(np.array([_terms(t, max_embed_dim, None) for t in timed])))


def _robust_fit(rows: Floats, times: Floats) -> Floats:
    """Return the nonnegative parameters with minimal robust relative error.

    Iteratively reweighted nonnegative least squares. Residuals are relative to the model's own times (relative to the
    measured ones, noise would make the model too fast); Cauchy weights make it robust against outliers.
    """
    scale, weights = times, np.ones(len(times))
    solution = np.zeros(rows.shape[1])
    for _ in range(_ITERATIONS):
        row_weights = np.sqrt(weights) / scale
        previous, solution = solution, nnls(rows * row_weights[:, None], times * row_weights)[0]
        if np.allclose(previous, solution, rtol=1e-5):
            break
        # Not below a twentieth: a network with a predicted time near zero would outweigh all others.
        scale = np.maximum(rows @ solution, times / 20)
        residuals = np.log(times / scale)
        # The median absolute deviation, scaled to the standard deviation of a normal distribution.
        spread = max(1.4826 * float(np.median(np.abs(residuals))), _MIN_SPREAD)
        weights = 1 / (1 + (residuals / (_HALF_WEIGHT * spread)) ** 2)
    return solution


def _log_ratio(predicted: Floats, times: Floats) -> Floats:
    """Return log(predicted / timed)."""
    # A fit may predict no time at all; a nanosecond keeps the logarithm finite.
    ratio: Floats = np.log(np.maximum(predicted, 1e-3) / times)
    return ratio


def _terms(timed: TimedNetwork, max_embed_dim: int, last_block: LastBlock | None) -> Floats:
    counts = _counts(timed.embed_dim, timed.num_heads, timed.hidden_dim, last_block)
    return _at_width(counts, timed.embed_dim, max_embed_dim)


def _at_width(counts: Floats, embed_dim: int, max_embed_dim: int) -> Floats:
    return np.concatenate([counts, counts * (embed_dim / max_embed_dim)])


def _counts(
    embed_dim: int, num_heads: Sequence[int], hidden_dim: Sequence[int], last_block: LastBlock | None
) -> Floats:
    """Return the factors of the coefficients: 1, halves with heads, heads, halves with channels, channels."""
    halves = sum(h > 0 for h in num_heads), sum(c > 0 for c in hidden_dim)
    heads, channels = float(sum(num_heads)), float(sum(hidden_dim))
    if last_block is not None:
        heads -= (1 - last_block.head_share(embed_dim)) * num_heads[-1]
        channels -= (1 - last_block.channel_share) * hidden_dim[-1]
    return np.array([1, halves[0], heads, halves[1], channels], dtype=float)
