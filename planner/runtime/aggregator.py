"""Aggregator: sends an image to all workers at once, and joins the features that come back in time.

All of it runs in the thread that calls, in one selecting loop. A device that misses the deadline of an image is left
out, and the fusion answers without it; it is asked again after a rest, each time twice as long, until it answers in
time. A worker that is lost is connected to again and again.

Legend: ch channels, H height, W width of an image, C classes.
"""

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError, setting
from planner.runtime.connection import NO_ALARM_NS, Connection, Phase
from planner.runtime.deployment import Deployment
from planner.runtime.device.frames import ReplyFrame, ReplyStatus, pack_request
from planner.runtime.device.names import DTYPES
from planner.runtime.fusion import ArrayFusion, Floating
from planner.runtime.known_workers import workers_of
from planner.runtime.measurements import DeviceState, FleetState, FleetTimes
from planner.schema.deployment import AggregatorManifest, ImageInput

MAX_IN_FLIGHT = 64
"""Largest number of images under way: as many as may wait on a worker."""

_NS_PER_US = 1000


@dataclass(frozen=True)
class Reply:
    """Reply of a device to one image; moments are those of this machine's monotonic clock [ns]."""

    id: int
    sent_ns: int
    received_ns: int
    compute_us: int  # as measured on the device
    total_us: int  # from the request being there to the reply, as measured on the device

    @property
    def round_trip_us(self) -> int:
        """Time from sending the request to having the reply [us]."""
        return (self.received_ns - self.sent_ns) // _NS_PER_US


@dataclass(frozen=True)
class Answer:
    """Answer of the fleet to one image."""

    label: int | None  # place of the class; None if no device answered
    logits: Floating  # (C,)
    latency_us: int  # from the image to the answer, fusion included
    replies: Mapping[str, Reply]
    missing: tuple[str, ...]  # devices that did not answer in time
    fusion_us: int


@dataclass
class _Flight:
    """Image that is under way."""

    frame: memoryview
    deadline_ns: int
    on_answer: Callable[[Answer], None]
    started_ns: int
    waiting: set[int] = field(default_factory=set)  # places of devices
    sent_ns: dict[int, int] = field(default_factory=dict)
    features: dict[int, Floating] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)


class Aggregator:
    """Aggregator of a deployment, to be used in a `with` statement by one thread.

    Args:
        deployment: Devices, fusion and secrets.
        addresses: `host:port` of the worker of each device; on loopback bytes are plain, elsewhere encrypted, but
            for workers in C without a certificate.
        deadline_us: Longest time that an image waits for devices; `default_deadline_us` unless given.
        log: Receiver of a line for each device that comes or goes.
        clock: The monotonic clock [ns].

    Raises:
        InputError: If a device has no address or an address cannot be used.
    """

    def __init__(
        self,
        deployment: Deployment,
        addresses: Mapping[str, str],
        deadline_us: int | None = None,
        log: Callable[[str], None] = lambda line: None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        manifest = deployment.manifest
        self.input = manifest.input
        self._deadline_us = default_deadline_us(manifest) if deadline_us is None else deadline_us
        self._clock = clock
        self._fusion = ArrayFusion(deployment.fusion, [device.features for device in manifest.devices])
        self._fleet = FleetTimes()
        self._planned = {device.name: device.planned for device in manifest.devices}
        self._flights: dict[int, _Flight] = {}
        self._next_id = 1
        targets = workers_of(deployment, addresses)
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._connections = [
            Connection(target, place, self._selector, clock, self._on_reply, self._on_lost, log)
            for place, target in enumerate(targets)
        ]
        # The slowest device gets its image first.
        self._in_order = sorted(self._connections, key=lambda c: -self._planned[c.target.name].latency_us)

    def __enter__(self) -> "Aggregator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def connect(self, timeout_s: float) -> tuple[str, ...]:
        """Wait until all devices are up or the time is over, and return the names of those that are not."""
        until = self._clock() + round(timeout_s * 1e9)
        while (down := self._down()) and self._clock() < until:
            self.step(until)
        return down

    def answer(self, image: NDArray[Any]) -> Answer:
        """Return the answer to an image (ch, H, W).

        Raises:
            InputError: If the image does not have the shape and type of the deployment.
        """
        return next(self.answers([image]))

    def answers(self, images: Iterable[NDArray[Any]], in_flight: int = 1) -> Iterator[Answer]:
        """Yield the answers to images in their order.

        Args:
            images: Images (ch, H, W).
            in_flight: Images under way at once. Several bring throughput; each then waits for those before it, within
                the same deadline.

        Raises:
            InputError: If an image does not have the shape and type of the deployment.
        """
        if not 1 <= in_flight <= MAX_IN_FLIGHT:
            raise InputError(f"{setting('in_flight')} must be from 1 to {MAX_IN_FLIGHT}, got {in_flight}.")
        waiting: deque[list[Answer]] = deque()
        for image in images:
            answer: list[Answer] = []
            # What happened since the last image counts: a device that has come back, or gone.
            self.step(0)
            self.submit(image, answer.append)
            waiting.append(answer)
            while len(waiting) >= in_flight:
                yield self._first(waiting)
        while waiting:
            yield self._first(waiting)

    def _first(self, waiting: deque[list[Answer]]) -> Answer:
        while not waiting[0]:
            self.step(NO_ALARM_NS)
        return waiting.popleft()[0]

    def submit(self, image: NDArray[Any], on_answer: Callable[[Answer], None]) -> None:
        """Send an image (ch, H, W) to all devices; `step` calls back with the answer.

        Raises:
            InputError: If the image does not have the shape and type of the deployment.
        """
        started, request_id = self._clock(), self._next_id
        frame = memoryview(pack_request(request_id, self._deadline_us, _as_bytes(image, self.input)))
        self._next_id += 1
        flight = _Flight(frame, started + self._deadline_us * _NS_PER_US, on_answer, started)
        self._flights[request_id] = flight
        self._launch(request_id, flight)

    def _launch(self, request_id: int, flight: _Flight) -> None:
        """Send an image to the devices that are there; if there are none, it waits for one until its deadline."""
        free = [connection for connection in self._in_order if connection.is_free]
        # A device that was late is better than none.
        chosen = [connection for connection in free if connection.is_rested] or free
        flight.waiting.update(connection.place for connection in chosen)
        for connection in chosen:
            flight.sent_ns[connection.place] = self._clock()
            connection.send_request(flight.frame, request_id)

    @property
    def num_in_flight(self) -> int:
        """Number of images under way."""
        return len(self._flights)

    def step(self, until_ns: int) -> None:
        """Wait for the next event, at most until a moment of the clock, and handle what is due."""
        alarms = (connection.alarm_ns for connection in self._connections)
        deadlines = (flight.deadline_ns for flight in self._flights.values())
        wait_ns = min(until_ns, *alarms, *deadlines) - self._clock()
        for key, mask in self._selector.select(min(max(wait_ns, 0), 3600 * 10**9) * 1e-9):
            if key.data is None:
                self._woken.recv(4096)
            else:
                key.data.on_event(mask)
        now = self._clock()
        for connection in self._connections:
            connection.on_time(now)
        for request_id, flight in list(self._flights.items()):
            # One that is finished may take a connection and with it others along.
            if request_id not in self._flights:
                continue
            if now >= flight.deadline_ns:
                self._finish(request_id)
            elif not flight.sent_ns:
                self._launch(request_id, flight)

    def wake(self) -> None:
        """End the waiting of `step`; the only method that another thread may call."""
        # A full pipe wakes just as well, and a closed one belongs to a loop that has ended.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def states(self) -> tuple[DeviceState, ...]:
        """Return state and measurements of each device, in the order of the plan."""
        return tuple(self._state(connection) for connection in self._connections)

    def fleet_state(self) -> FleetState:
        """Return counts and latencies of the whole fleet's answers."""
        return self._fleet.state()

    def _state(self, connection: Connection) -> DeviceState:
        times, target = connection.times, connection.target
        return DeviceState(
            name=target.name,
            address=str(target.endpoint),
            is_up=connection.phase == Phase.UP,
            since_s=(self._clock() - connection.since_ns) * 1e-9,
            reason=connection.reason,
            planned=self._planned[target.name],
            answered=times.answered,
            missed=times.missed,
            transport=times.transport,
            compute=times.compute,
            peak_memory_bytes=times.peak_memory_bytes or None,
        )

    def _down(self) -> tuple[str, ...]:
        return tuple(c.target.name for c in self._connections if c.phase != Phase.UP)

    def _on_reply(self, connection: Connection, frame: ReplyFrame) -> None:
        flight, now = self._flights[frame.id], self._clock()
        features = np.frombuffer(frame.features, "<f4")
        # Infinite features would make the whole answer so.
        if frame.status == ReplyStatus.ANSWERED and np.isfinite(features).all():
            reply = Reply(frame.id, flight.sent_ns[connection.place], now, frame.compute_us, frame.total_us)
            flight.replies[connection.target.name] = reply
            flight.features[connection.place] = features
            connection.answered(reply.round_trip_us, reply.compute_us)
        else:
            connection.rest()
        self._no_longer_waits(frame.id, connection.place)

    def _on_lost(self, connection: Connection, request_ids: set[int]) -> None:
        for request_id in request_ids:
            self._no_longer_waits(request_id, connection.place)

    def _no_longer_waits(self, request_id: int, place: int) -> None:
        flight = self._flights[request_id]
        flight.waiting.discard(place)
        if not flight.waiting:
            self._finish(request_id)

    def _finish(self, request_id: int) -> None:
        flight = self._flights.pop(request_id)
        began = self._clock()
        logits = self._fusion.logits(flight.features)
        ended = self._clock()
        for place in flight.waiting:
            self._connections[place].give_up(request_id)
        missing = tuple(c.target.name for c in self._connections if c.target.name not in flight.replies)
        answer = Answer(
            label=int(logits.argmax()) if flight.features else None,
            logits=logits,
            latency_us=(ended - flight.started_ns) // _NS_PER_US,
            replies=flight.replies,
            missing=missing,
            fusion_us=(ended - began) // _NS_PER_US,
        )
        self._fleet.add(answer.latency_us, missing)
        flight.on_answer(answer)


def default_deadline_us(manifest: AggregatorManifest) -> int:
    """Return the deadline of an image unless another is asked for: twice the planned latency, at least 100 ms more."""
    return max(2 * manifest.latency_us, manifest.latency_us + 100_000)


def _as_bytes(image: NDArray[Any], expected: ImageInput) -> memoryview:
    dtype = DTYPES[expected.dtype]
    if image.shape != expected.shape or image.dtype != dtype:
        raise InputError(
            f"an image must be {expected.dtype} of shape {expected.shape}, got {image.dtype} of shape {image.shape}."
        )
    return np.ascontiguousarray(image).data.cast("B")
