"""Connection of the aggregator to one worker: connects, proves the token, sends images, notices silence, comes back.

Nothing here waits: the aggregator's selecting loop tells of events and of time. Moments are those of the monotonic
clock [ns].
"""

import contextlib
import hmac
import os
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from planner.runtime.device.channel import Channel
from planner.runtime.device.frames import (
    PROTOCOL,
    FrameError,
    FrameType,
    ReplyFrame,
    limits_before_hello,
    limits_of_aggregator,
    pack_ping,
    pack_pong,
    pack_proof,
    proof_of,
    unpack_hello,
    unpack_ping,
    unpack_pong,
    unpack_reply,
)
from planner.runtime.known_workers import KnownWorker
from planner.runtime.measurements import DeviceTimes

NO_ALARM_NS = 2**63

_MS = 1_000_000
_SECOND = 1000 * _MS
# Short enough that a packet lost while a cable was out costs one attempt, not the seconds of TCP's own patience.
_CONNECT_NS, _HANDSHAKE_NS = 1 * _SECOND, 5 * _SECOND
_PING_NS, _SILENCE_NS = 1 * _SECOND, 2 * _SECOND
# Between attempts to connect, and for a worker that answers, but too late: trying it costs one image its deadline.
_FIRST_RETRY_NS, _MAX_RETRY_NS = 50 * _MS, 500 * _MS
_FIRST_REST_NS, _MAX_REST_NS = 100 * _MS, 30 * _SECOND
_REFUSED = (
    "refused the connection after the proof: another token, or another aggregator is served; see the worker's log"
)


class Phase(IntEnum):
    """Stages of a connection."""

    DOWN = 0
    CONNECTING = 1
    SECURING = 2
    GREETING = 3
    PROVING = 4
    UP = 5


class Connection:
    """Connection that is up, or on its way.

    Args:
        target: Worker to connect to.
        place: Place of the device in the plan.
        selector: Selector of the aggregator's loop, in which the connection registers itself.
        clock: The monotonic clock [ns].
        on_reply: Receiver of replies to requests that are not overdue.
        on_lost: Called with the connection when requests under way are lost with it.
        log: Receiver of a line for each change.
    """

    def __init__(
        self,
        target: KnownWorker,
        place: int,
        selector: selectors.BaseSelector,
        clock: Callable[[], int],
        on_reply: "Callable[[Connection, ReplyFrame], None]",
        on_lost: "Callable[[Connection, set[int]], None]",
        log: Callable[[str], None],
    ) -> None:
        self.target, self.place, self.times = target, place, DeviceTimes()
        self._selector, self._clock = selector, clock
        self._on_reply, self._on_lost, self._log = on_reply, on_lost, log
        self.phase, self.since_ns, self.reason = Phase.DOWN, clock(), "not connected yet"
        self._sock: socket.socket | None = None
        self._channel: Channel | None = None
        self._outgoing: deque[memoryview] = deque()
        self._mask = 0
        self._under_way: set[int] = set()
        self._overdue: set[int] = set()
        self._retry_ns, self._rest_ns, self._rests_until = _FIRST_RETRY_NS, _FIRST_REST_NS, 0
        # Next attempt, end of the stage, or next ping, by phase.
        self.alarm_ns = clock()
        self._heard_ns = 0
        self._pinged = False

    @property
    def is_free(self) -> bool:
        """Return whether an image can be sent: up, and nothing overdue."""
        return self.phase == Phase.UP and not self._overdue

    @property
    def is_rested(self) -> bool:
        """Return whether enough time has passed since the device was late."""
        return self._clock() >= self._rests_until

    def send_request(self, frame: memoryview, request_id: int) -> None:
        """Send a request; a connection that is lost over it tells `on_lost`."""
        self._under_way.add(request_id)
        self._guard(lambda: self._send(frame))

    def give_up(self, request_id: int) -> None:
        """Take note that an image was answered without this device: it rests, each time twice as long."""
        if request_id in self._under_way:
            self._under_way.remove(request_id)
            self._overdue.add(request_id)
        self.rest()
        if self.phase == Phase.UP and not self._pinged:
            self._guard(self._ping)

    def rest(self) -> None:
        """Let the device rest, each time twice as long until it answers in time."""
        self.times.missed += 1
        self._rests_until = self._clock() + self._rest_ns
        self._rest_ns = min(2 * self._rest_ns, _MAX_REST_NS)

    def answered(self, round_trip_us: int, compute_us: int) -> None:
        """Take note that the device answered in time."""
        self._rest_ns = _FIRST_REST_NS
        self.times.add(round_trip_us, compute_us)

    def on_event(self, mask: int) -> None:
        """Go on after the socket became readable or writable."""
        self._guard(lambda: self._advance(mask))

    def on_time(self, now: int) -> None:
        """Go on after the alarm: another attempt, a ping, or the end of patience."""
        if now < self.alarm_ns:
            return
        if self.phase == Phase.DOWN:
            self._guard(self._connect)
        elif self.phase != Phase.UP:
            self._lose(
                f"no answer within {_CONNECT_NS // _SECOND} s" if self._channel is None else _stalled(self.phase)
            )
        elif self._pinged and now - self._heard_ns >= _SILENCE_NS:
            self._lose(f"silent for {_SILENCE_NS // _SECOND} s")
        else:
            self._guard(self._ping)

    def close(self) -> None:
        """Close the connection for good."""
        self._disconnect()
        self.alarm_ns = NO_ALARM_NS

    def _guard(self, action: Callable[[], None]) -> None:
        """Act, and lose the connection if the worker breaks the rules or is lost."""
        try:
            action()
        except FrameError as error:
            self._lose(f"broke the protocol: {error}")
        except ssl.SSLCertVerificationError:
            self._lose("its certificate is not the one that was exported for it")
        except (OSError, ValueError) as error:
            refused = self.phase == Phase.PROVING and isinstance(error, ConnectionError)
            self._lose(_REFUSED if refused else str(getattr(error, "strerror", None) or error))

    def _connect(self) -> None:
        endpoint = self.target.endpoint
        self._sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self.phase, self.alarm_ns = Phase.CONNECTING, self._clock() + _CONNECT_NS
        with contextlib.suppress(BlockingIOError):
            self._sock.connect((endpoint.host, endpoint.port))
        self._selector.register(self._sock, selectors.EVENT_WRITE, self)

    def _advance(self, mask: int) -> None:
        if self.phase == Phase.CONNECTING:
            self._open_channel()
        channel = self._channel
        if channel is None:
            return
        if self.phase == Phase.SECURING:
            if not channel.secure():
                return
            self._check_certificate(channel)
            self.phase = Phase.GREETING
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if mask & selectors.EVENT_READ:
            channel.receive()
            self._heard_ns = self._clock()
            self._handle_frames(channel)

    def _open_channel(self) -> None:
        sock = self._sock
        assert sock is not None
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        # TLS wraps the socket into another object.
        self._selector.unregister(sock)
        self._channel = Channel(sock, self.target.context, is_server=False, limits=limits_before_hello())
        self._sock = self._channel.sock
        self._mask = selectors.EVENT_READ
        self._selector.register(self._sock, self._mask, self)
        self.phase = Phase.GREETING if self.target.context is None else Phase.SECURING
        self.alarm_ns = self._clock() + _HANDSHAKE_NS

    def _check_certificate(self, channel: Channel) -> None:
        if not isinstance(channel.sock, ssl.SSLSocket):
            return
        # Pinned is this one certificate, and no other that it may have signed.
        if not hmac.compare_digest(channel.sock.getpeercert(binary_form=True) or b"", self.target.certificate):
            raise ssl.SSLCertVerificationError("not the pinned certificate")

    def _handle_frames(self, channel: Channel) -> None:
        while channel.is_open:
            frame = channel.reader.next_frame()
            if frame is not None:
                self._handle(channel, *frame)
            elif channel.has_pending:
                channel.receive()
            else:
                return

    def _handle(self, channel: Channel, frame_type: int, payload: memoryview) -> None:
        if frame_type == FrameType.HELLO:
            self._check_hello(channel, payload)
        elif frame_type == FrameType.REPLY:
            reply = unpack_reply(payload, self.target.num_features)
            if reply.id in self._overdue:
                self._overdue.remove(reply.id)
            elif reply.id in self._under_way:
                self._under_way.remove(reply.id)
                self._on_reply(self, reply)
            else:
                raise FrameError(f"a reply must have the id of a request that waits, got {reply.id}")
        elif frame_type == FrameType.PING:
            self._send(memoryview(pack_pong(unpack_ping(payload))))
        else:
            self.times.peak_memory_bytes = unpack_pong(payload).peak_memory_bytes
            self._pinged = False
            if self.phase == Phase.PROVING:
                self._come_up()

    def _check_hello(self, channel: Channel, payload: memoryview) -> None:
        hello, target = unpack_hello(payload), self.target
        if hello.protocol != PROTOCOL:
            raise FrameError(f"it speaks protocol {hello.protocol}, not {PROTOCOL}; export and deploy again")
        if not hmac.compare_digest(hello.bundle, target.bundle):
            raise FrameError(f"it runs bundle {hello.bundle.hex()[:12]}..., not {target.bundle.hex()[:12]}...")
        expected = {"device": target.name, "input": target.image, "features": target.num_features}
        for key, value in expected.items():
            if hello.about.get(key) != value:
                raise FrameError(f"its {key} must be {value!r}, got {str(hello.about.get(key))[:100]!r}")
        channel.reader.limits = limits_of_aggregator(target.num_features)
        self.phase = Phase.PROVING
        # The pong tells that the proof was accepted.
        proof = pack_proof(proof_of(target.token, hello.nonce), target.bundle)
        self._send(memoryview(proof + pack_ping(0)))

    def _come_up(self) -> None:
        self.phase, self.since_ns, self.reason = Phase.UP, self._clock(), ""
        self._retry_ns, self.alarm_ns = _FIRST_RETRY_NS, self._clock() + _PING_NS
        is_open = self.target.context is None and not self.target.endpoint.is_loopback
        self._log(f"{self.target.name}: up{', not encrypted: a worker in C' if is_open else ''}")

    def _ping(self) -> None:
        self._pinged, self.alarm_ns = True, self._clock() + _PING_NS
        self._send(memoryview(pack_ping(0)))

    def _send(self, frame: memoryview) -> None:
        self._outgoing.append(frame)
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        channel, outgoing = self._channel, self._outgoing
        if channel is None:
            return
        while outgoing:
            outgoing[0] = outgoing[0][channel.write(outgoing[0]) :]
            if outgoing[0]:
                self._await(selectors.EVENT_READ | selectors.EVENT_WRITE)
                return
            outgoing.popleft()
        self._await(selectors.EVENT_READ)

    def _await(self, mask: int) -> None:
        if self._mask != mask and self._sock is not None:
            self._mask = mask
            self._selector.modify(self._sock, mask, self)

    def _lose(self, reason: str) -> None:
        was = self.reason
        if self.phase == Phase.UP or self.reason == "not connected yet":
            self.since_ns = self._clock()
        self._disconnect()
        self.reason, self.alarm_ns = reason[:300], self._clock() + self._retry_ns
        self._retry_ns = min(2 * self._retry_ns, _MAX_RETRY_NS)
        # Not a line for each attempt.
        if self.reason != was:
            self._log(f"{self.target.name}: down: {self.reason}")
        lost, self._under_way = self._under_way, set()
        self._overdue.clear()
        if lost:
            self._on_lost(self, lost)

    def _disconnect(self) -> None:
        self.phase, self._pinged = Phase.DOWN, False
        self._outgoing.clear()
        if self._sock is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._sock)
            self._sock.close()
        if self._channel is not None:
            self._channel.close()
        self._sock = self._channel = None


def _stalled(phase: Phase) -> str:
    stage = {Phase.SECURING: "TLS handshake", Phase.GREETING: "hello"}.get(phase, "answer to the proof")
    return f"no {stage} within {_HANDSHAKE_NS // _SECOND} s"
