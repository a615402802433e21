"""Compute time of sub-models on a device: by the latency table of its kind and engine, else by a declared MAC rate.

The device's own MAC rate wins over the table, the table over the rate of its kind. A table of another engine is none:
engines differ by a factor of several on the same board.

Legend: L blocks, h_l kept heads and c_l kept hidden channels of block l.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from planner.errors import InputError, setting
from planner.rules.links import rational
from planner.schema import Device, DeviceKind, Engine, Precision, Profile, Width
from planner.schema.profile import LatencyRow


@dataclass(frozen=True)
class TimeModel:
    """Compute time [us] at one width: fixed + sum_l [h_l>0] attention + head_l h_l + [c_l>0] mlp + channel_l c_l.

    Coefficients that are tuples have an entry for each block. `estimated`: from a declared MAC rate instead of a
    measurement.
    """

    fixed: Fraction
    attention: Fraction
    head: tuple[Fraction, ...]
    mlp: Fraction
    channel: tuple[Fraction, ...]
    estimated: bool

    def compute_us(self, heads: Sequence[int], channels: Sequence[int]) -> int:
        """Return the compute time [us] of h_l heads and c_l channels, rounded up."""
        total = self.fixed
        for l, (h, c) in enumerate(zip(heads, channels, strict=True)):
            total += (h > 0) * self.attention + self.head[l] * h
            total += (c > 0) * self.mlp + self.channel[l] * c
        return math.ceil(total)


@dataclass(frozen=True)
class TimeSource:
    """Sources of a device's compute time: rows of a latency table by width and precision, and a MAC rate [MAC/s]."""

    rows: Mapping[tuple[int, Precision], LatencyRow]
    rate: Fraction | None
    engine: Engine

    def at(self, width: Width, precision: Precision) -> TimeModel | None:
        """Return the compute time at a width and precision, if the device can be timed there."""
        row = self.rows.get((width.embed_dim, precision))
        if row is None and self.engine == "onnxruntime":
            # Where only float32 was timed, its time stands for the other precisions, which are hardly ever slower.
            row = self.rows.get((width.embed_dim, "float32"))
        if row is not None:
            return measured_time(row, len(width.head_macs))
        return None if self.rate is None else _estimated(width, self.rate)


def time_source(profile: Profile, device: Device, card: DeviceKind | None, engine: Engine) -> TimeSource:
    """Return the sources of a device's compute time, neither of which may be there.

    Raises:
        InputError: If its kind was timed in another engine alone, or in C at another precision alone.
    """
    table = () if device.macs_per_second else profile.latency.get(device.kind or "", ())
    own = {(r.embed_dim, r.precision): r for r in table if r.engine == engine}
    if table and not own:
        raise InputError(
            f"device {device.name!r}: kind {device.kind!r} must be timed in the device's engine {engine!r}, got times "
            f"in {table[0].engine!r} alone; make probes with {setting('engine', engine)}, or give the device its own "
            "macs_per_second."
        )
    timed = sorted({precision for _, precision in own})
    # In C, int8 is slower than float32 on some processors.
    untimed = [p for p in device.precisions if p not in timed]
    if own and engine == "c" and untimed:
        raise InputError(
            f"device {device.name!r}: precision must be one that kind {device.kind!r} was timed at in C "
            f"({', '.join(timed)}), got {untimed[0]!r}; make probes with {setting('precision', untimed[0])}."
        )
    return TimeSource(own, macs_per_second(device, card), engine)


def macs_per_second(device: Device, card: DeviceKind | None) -> Fraction | None:
    """Return the declared MAC rate [MAC/s] of a device, or else of its kind, if either states one."""
    own = device.macs_per_second or (card.macs_per_second if card else None)
    return None if own is None else rational(own)


def measured_time(row: LatencyRow, depth: int) -> TimeModel:
    """Return the compute time by a row of a latency table, of sub-models of so many blocks."""
    return TimeModel(
        fixed=rational(row.fixed_us),
        attention=rational(row.attention_us),
        head=_of_blocks(row.head_us, row.last_head_us, depth),
        mlp=rational(row.mlp_us),
        channel=_of_blocks(row.channel_us, row.last_channel_us, depth),
        estimated=False,
    )


def _of_blocks(each: float, last: float | None, depth: int) -> tuple[Fraction, ...]:
    """Return a coefficient of each block, of which the last may have its own."""
    return (rational(each),) * (depth - 1) + (rational(each if last is None else last),)


def _estimated(width: Width, rate: Fraction) -> TimeModel:
    us_per_mac = 10**6 / rate
    return TimeModel(
        fixed=width.fixed_macs * us_per_mac,
        attention=Fraction(0),
        head=tuple(m * us_per_mac for m in width.head_macs),
        mlp=Fraction(0),
        channel=tuple(m * us_per_mac for m in width.channel_macs),
        estimated=True,
    )
