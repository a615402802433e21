"""Measurements of a running fleet: times of each device, and answers of the whole."""

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from planner.schema.deployment import PlannedCosts
from planner.schema.rehearsal import Percentiles

# Percentiles are those of the last so many images.
_WINDOW = 1000
_RATE_SECONDS = 10.0


@dataclass(frozen=True)
class DeviceState:
    """State of one device, and what was measured of it."""

    name: str
    address: str
    is_up: bool
    since_s: float  # seconds that it has been up or down
    reason: str  # of being down; empty if it is up
    planned: PlannedCosts
    answered: int  # images that it answered in time
    missed: int  # images that were answered without it
    transport: Percentiles | None  # all but compute: link, waiting for other images, the worker's own work
    compute: Percentiles | None  # as measured on the device
    peak_memory_bytes: int | None  # of the worker's process (VmHWM), where it is Linux


@dataclass(frozen=True)
class FleetState:
    """Answers of the whole fleet."""

    answered: int
    latency: Percentiles | None
    images_per_second: float  # over the last ten seconds
    missing: tuple[tuple[tuple[str, ...], int], ...]  # answers without whom, and how many


class DeviceTimes:
    """Times and counts of one device."""

    def __init__(self) -> None:
        self.answered = self.missed = 0
        self.peak_memory_bytes = 0
        self._transport_us: deque[int] = deque(maxlen=_WINDOW)
        self._compute_us: deque[int] = deque(maxlen=_WINDOW)

    def add(self, round_trip_us: int, compute_us: int) -> None:
        """Count an answer in time."""
        self.answered += 1
        self._transport_us.append(max(0, round_trip_us - compute_us))
        self._compute_us.append(compute_us)

    @property
    def transport(self) -> Percentiles | None:
        """Time of all but compute."""
        return _percentiles(self._transport_us)

    @property
    def compute(self) -> Percentiles | None:
        """Compute time."""
        return _percentiles(self._compute_us)


class FleetTimes:
    """Latencies and counts of all answers."""

    def __init__(self) -> None:
        self._answered = 0
        self._latency_us: deque[int] = deque(maxlen=_WINDOW)
        self._finished: deque[float] = deque(maxlen=10 * _WINDOW)
        self._missing: Counter[tuple[str, ...]] = Counter()

    def add(self, latency_us: int, missing: tuple[str, ...]) -> None:
        """Count an answer."""
        self._answered += 1
        self._latency_us.append(latency_us)
        self._finished.append(time.monotonic())
        if missing:
            self._missing[missing] += 1

    def state(self) -> FleetState:
        """Return what was counted."""
        now = time.monotonic()
        recent = [t for t in self._finished if now - t <= _RATE_SECONDS]
        # Since the first of them, where it all began less than ten seconds ago.
        seconds = now - recent[0] if len(recent) > 1 else 0.0
        return FleetState(
            answered=self._answered,
            latency=_percentiles(self._latency_us),
            images_per_second=len(recent) / seconds if seconds > 0 else 0.0,
            missing=tuple(self._missing.most_common(20)),
        )


def _percentiles(times_us: Iterable[int]) -> Percentiles | None:
    values = np.fromiter(times_us, dtype=np.float64)
    if not values.size:
        return None
    p10, p50, p99 = np.percentile(values, (10, 50, 99)).tolist()
    return Percentiles(p10=p10, p50=p50, p99=p99)
