"""Inference on a device: one image at a time, in a thread of its own, so that pings are answered meanwhile."""

from __future__ import annotations

import ctypes
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from .frames import ReplyStatus, RequestFrame, pack_reply
from .peer import Peer

MAX_WAITING = 64
"""Largest number of requests that may wait for the one that is computed."""

_MARK = struct.Struct("<Qqqqqq")
_PR_SET_TIMERSLACK = 29


class Hold(NamedTuple):
    """Planned times that a rehearsal holds a worker to by waiting [us]; 0 where nothing is held."""

    send_us: int = 0
    compute_us: int = 0
    return_us: int = 0


class Job(NamedTuple):
    """Request with its peer and the moment at which it was there [ns]."""

    peer: Peer
    request: RequestFrame
    arrived_ns: int


class ComputeThread(threading.Thread):
    """Thread that answers requests in their order.

    Args:
        features_of: From an image to its features, both as bytes.
        hold: Planned times to keep.
        marks: File that gets the moments of each request [ns of the monotonic clock], as `<Qqqqqq`: request id, when
            it was there, compute began, the network had returned, compute ended, the reply was due; none unless given.
        log: Receiver of a line for each image that cannot be computed.
    """

    def __init__(
        self,
        features_of: Callable[[memoryview], bytes],
        hold: Hold,
        marks: BinaryIO | None,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(name="compute", daemon=True)
        self._features_of, self._hold, self._marks, self._log = features_of, hold, marks, log
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    @property
    def is_full(self) -> bool:
        """Return whether no further request may wait."""
        return self._jobs.qsize() >= MAX_WAITING

    def put(self, job: Job) -> None:
        """Let a request wait for its turn."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the thread after the requests that wait."""
        self._jobs.put(None)

    def run(self) -> None:
        if any(self._hold):
            minimise_timer_slack()
        while True:
            job = self._jobs.get()
            if job is None:
                return
            # Of a peer that was lost meanwhile, nothing is computed.
            if job.peer.is_open:
                job.peer.send_or_abort(self._reply(job))

    def _reply(self, job: Job) -> bytes:
        request, arrived, hold = job.request, job.arrived_ns, self._hold
        if time.monotonic_ns() - arrived > request.deadline_us * 1000:
            return pack_reply(request.id, ReplyStatus.LATE, 0, _us_since(arrived))
        _sleep_until(arrived + hold.send_us * 1000)
        began = time.monotonic_ns()
        try:
            features, status = self._features_of(request.image), ReplyStatus.ANSWERED
        # Whatever goes wrong with one image, the next may be answered.
        except Exception as error:
            self._log(f"an image could not be computed: {error}")
            features, status = b"", ReplyStatus.FAILED
        returned = time.monotonic_ns()
        _sleep_until(began + hold.compute_us * 1000)
        ended = time.monotonic_ns()
        _sleep_until(ended + hold.return_us * 1000)
        if self._marks is not None:
            self._marks.write(_MARK.pack(request.id, arrived, began, returned, ended, time.monotonic_ns()))
            self._marks.flush()
        return pack_reply(request.id, status, (ended - began) // 1000, _us_since(arrived), features)


def minimise_timer_slack() -> None:
    """Let this thread's sleeps end on time, where the system is Linux; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def _us_since(moment_ns: int) -> int:
    return (time.monotonic_ns() - moment_ns) // 1000


def _sleep_until(moment_ns: int) -> None:
    left = moment_ns - time.monotonic_ns()
    if left > 0:
        time.sleep(left * 1e-9)
