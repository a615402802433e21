"""Times of each answer, put together from the aggregator's clock and the workers' marks.

All processes of one machine read the same monotonic clock, so the moment at which an image is at a device is known on
either side: send ends where the worker begins to compute, and return begins where it has done so.

A worker started with `--marks FILE` appends for each reply the request's id and five moments [ns]: the frame was read,
computing began, the network was done, computing ended, the reply is about to be written.
"""

import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.schema import Percentiles

_MARKS = struct.Struct("<6Q")


@dataclass(frozen=True)
class Marks:
    """Moments of one reply on a device [ns]."""

    read: int
    compute_began: int
    network_done: int
    compute_ended: int
    replied: int


@dataclass(frozen=True)
class StepTimes:
    """Times of one answered image on a device [us]."""

    send: float
    compute: float
    returned: float
    network: float  # the sub-model itself, without waiting

    @property
    def latency(self) -> float:
        """All steps together [us]."""
        return self.send + self.compute + self.returned


def read_marks(paths: Iterable[Path]) -> dict[int, Marks]:
    """Return the marks of each request by its id; a last one that was cut off by a kill is left out."""
    found = {}
    for path in paths:
        content = path.read_bytes() if path.exists() else b""
        whole = len(content) // _MARKS.size * _MARKS.size
        for request, *moments in _MARKS.iter_unpack(content[:whole]):
            found[request] = Marks(*moments)
    return found


def step_times(sent_ns: int, received_ns: int, marks: Marks) -> StepTimes:
    """Return the times of one reply.

    Args:
        sent_ns: Moment at which the aggregator began to send the request.
        received_ns: Moment at which it had the reply.
        marks: Moments on the device.
    """
    moments = (sent_ns, marks.compute_began, marks.compute_ended, received_ns)
    send, compute, returned = (max(0, b - a) / 1000 for a, b in itertools.pairwise(moments))
    return StepTimes(send, compute, returned, max(0, marks.network_done - marks.compute_began) / 1000)


def percentiles(times_us: Sequence[float]) -> Percentiles | None:
    """Return the percentiles of times [us], if there are any."""
    if not times_us:
        return None
    p10, p50, p99 = (round(float(us), 1) for us in np.percentile(times_us, (10, 50, 99)))
    return Percentiles(p10=p10, p50=p50, p99=p99)
