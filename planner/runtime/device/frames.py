"""Frames between the aggregator and a worker, without any input or output.

A frame is `length: u32` of its payload (at most 64 MiB), `type: u8`, payload; little-endian.

    1 hello, by the worker   "VITP", protocol u16, nonce (16 bytes), SHA-256 of the bundle, JSON of at most 4 KiB
    2 proof, hello back      HMAC-SHA-256(token, nonce), SHA-256 of the bundle
    3 request                id u64, deadline_us u32, the image as the planned dtype
    4 reply                  id u64, status u8, compute_us u32, total_us u32, features as float32 if the status is 0
    5 ping, by either side   id u64
    6 pong                   id u64, peak memory of the worker u64 [bytes]

A deadline counts from the moment at which the worker has the request: clocks of two machines are not compared.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from .errors import DeviceError

PROTOCOL = 1
MAX_PAYLOAD_BYTES = 64 * 2**20
MAX_ABOUT_BYTES = 4096
NONCE_BYTES, SHA256_BYTES = 16, 32
MAX_U32 = 2**32 - 1

_MAGIC = b"VITP"
_HEADER = struct.Struct("<IB")
_HELLO = struct.Struct("<4sH16s32s")
_PROOF = struct.Struct("<32s32s")
_REQUEST = struct.Struct("<QI")
_REPLY = struct.Struct("<QBII")
_PING = struct.Struct("<Q")
_PONG = struct.Struct("<QQ")
_BUFFER_BYTES = 64 * 1024


class FrameError(DeviceError):
    """Bytes that are no frame, or a frame that may not come now: the connection is to be closed."""


class FrameType(IntEnum):
    """Kinds of frames."""

    HELLO = 1
    PROOF = 2
    REQUEST = 3
    REPLY = 4
    PING = 5
    PONG = 6


class ReplyStatus(IntEnum):
    """Outcomes of a request."""

    ANSWERED = 0
    FAILED = 1
    LATE = 2


class HelloFrame(NamedTuple):
    """First frame of a worker."""

    protocol: int
    nonce: bytes
    bundle: bytes
    about: dict[str, Any]


class RequestFrame(NamedTuple):
    """Image to answer."""

    id: int
    deadline_us: int
    image: memoryview


class ReplyFrame(NamedTuple):
    """Features of an image, and the times that they took on the device."""

    id: int
    status: int
    compute_us: int
    total_us: int
    features: memoryview


class PongFrame(NamedTuple):
    """Sign of life."""

    id: int
    peak_memory_bytes: int


class FrameReader:
    """Frames out of the bytes of a connection, however they are cut into pieces.

    Bytes are received into `room()`, counted by `received()`, and frames taken by `next_frame()` until there is none.
    No more memory is taken than the limits allow, whatever the peer claims.

    Args:
        limits: Largest payload [bytes] of each type of frame that may come now; may be set anew between two frames.
    """

    def __init__(self, limits: Mapping[int, int]) -> None:
        self.limits = limits
        self._buffer = bytearray(_BUFFER_BYTES)
        self._start = self._end = 0
        # Payload of a frame that is under way: received in place, without another copy.
        self._payload: bytearray | None = None
        self._filled = 0
        self._type = 0

    def room(self) -> memoryview:
        """Return the place for the next bytes, at least one byte long."""
        if self._payload is not None:
            return memoryview(self._payload)[self._filled :]
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> None:
        """Take note that this many bytes were written to the room."""
        if self._payload is not None:
            self._filled += count
        else:
            self._end += count

    def next_frame(self) -> tuple[int, memoryview] | None:
        """Return type and payload of the next frame, or None if it is not complete.

        Raises:
            FrameError: If a frame of this type or size may not come now.
        """
        if self._payload is not None:
            if self._filled < len(self._payload):
                return None
            payload, self._payload = self._payload, None
            return self._type, memoryview(payload)
        have = self._end - self._start
        if have < _HEADER.size:
            self._buffer[:have] = self._buffer[self._start : self._end]
            self._start, self._end = 0, have
            return None
        length, frame_type = _HEADER.unpack_from(self._buffer, self._start)
        self._check(frame_type, length)
        begin = self._start + _HEADER.size
        end = begin + length
        if end <= self._end:
            self._start = end
            return frame_type, memoryview(self._buffer[begin:end])
        self._payload, self._filled, self._type = bytearray(length), self._end - begin, frame_type
        self._payload[: self._filled] = self._buffer[begin : self._end]
        self._start = self._end = 0
        return None

    def _check(self, frame_type: int, length: int) -> None:
        limit = self.limits.get(frame_type)
        if limit is None:
            raise FrameError(f"frames of types {sorted(map(int, self.limits))} may come now, got {frame_type}")
        if length > min(limit, MAX_PAYLOAD_BYTES):
            raise FrameError(f"a frame of type {frame_type} must have at most {limit} bytes, got {length}")


def limits_before_hello() -> dict[int, int]:
    """Return the limits of an aggregator that waits for a worker's hello."""
    return {FrameType.HELLO: _HELLO.size + MAX_ABOUT_BYTES}


def limits_before_proof() -> dict[int, int]:
    """Return the limits of a worker that has said hello."""
    return {FrameType.PROOF: _PROOF.size}


def limits_of_worker(image_bytes: int) -> dict[int, int]:
    """Return the limits of a worker that serves an aggregator."""
    return {FrameType.REQUEST: _REQUEST.size + image_bytes, **_LIVENESS}


def limits_of_aggregator(num_features: int) -> dict[int, int]:
    """Return the limits of an aggregator that a worker serves."""
    return {FrameType.REPLY: _REPLY.size + 4 * num_features, **_LIVENESS}


_LIVENESS: dict[int, int] = {FrameType.PING: _PING.size, FrameType.PONG: _PONG.size}


def proof_of(token: bytes, nonce: bytes) -> bytes:
    """Return what proves to have the token: HMAC-SHA-256(token, nonce)."""
    return hmac.new(token, nonce, hashlib.sha256).digest()


def pack_hello(nonce: bytes, bundle: bytes, about: Mapping[str, Any]) -> bytes:
    """Return the first frame of a worker.

    Raises:
        FrameError: If what is told about the worker is longer than 4 KiB.
    """
    text = json.dumps(about, separators=(",", ":")).encode()
    if len(text) > MAX_ABOUT_BYTES:
        raise FrameError(f"hello's JSON must have at most {MAX_ABOUT_BYTES} bytes, got {len(text)}")
    return _pack(FrameType.HELLO, _HELLO.pack(_MAGIC, PROTOCOL, nonce, bundle), text)


def unpack_hello(payload: memoryview) -> HelloFrame:
    """Return a worker's hello; only that of this protocol is read beyond its number.

    Raises:
        FrameError: If it is none.
    """
    magic, protocol, nonce, bundle = _unpack_first(_HELLO, payload)
    if magic != _MAGIC:
        raise FrameError("hello must begin with VITP")
    if protocol != PROTOCOL:
        return HelloFrame(protocol, nonce, bundle, {})
    try:
        about = json.loads(bytes(payload[_HELLO.size :]))
    # JSON nested too deeply is a RecursionError.
    except (ValueError, RecursionError):
        raise FrameError("hello must end with JSON") from None
    if not isinstance(about, dict):
        raise FrameError("hello's JSON must be an object")
    return HelloFrame(protocol, nonce, bundle, about)


def pack_proof(proof: bytes, bundle: bytes) -> bytes:
    """Return the aggregator's hello back."""
    return _pack(FrameType.PROOF, _PROOF.pack(proof, bundle))


def unpack_proof(payload: memoryview) -> tuple[bytes, bytes]:
    """Return proof and bundle of an aggregator's hello back.

    Raises:
        FrameError: If it is none.
    """
    proof, bundle = _unpack(_PROOF, payload)
    return proof, bundle


def pack_request(request_id: int, deadline_us: int, image: memoryview) -> bytes:
    """Return the request for an image."""
    return _pack(FrameType.REQUEST, _REQUEST.pack(request_id, min(deadline_us, MAX_U32)), image)


def unpack_request(payload: memoryview, image_bytes: int) -> RequestFrame:
    """Return a request.

    Raises:
        FrameError: If its image has another size.
    """
    request_id, deadline_us = _unpack_first(_REQUEST, payload)
    image = payload[_REQUEST.size :]
    if len(image) != image_bytes:
        raise FrameError(f"an image must have {image_bytes} bytes, got {len(image)}")
    return RequestFrame(request_id, deadline_us, image)


def pack_reply(request_id: int, status: int, compute_us: int, total_us: int, features: bytes = b"") -> bytes:
    """Return the reply to a request; times beyond an hour are told as the most that there is room for."""
    times = min(compute_us, MAX_U32), min(total_us, MAX_U32)
    return _pack(FrameType.REPLY, _REPLY.pack(request_id, status, *times), features)


def unpack_reply(payload: memoryview, num_features: int) -> ReplyFrame:
    """Return a reply.

    Raises:
        FrameError: If its status is unknown, or it has another number of features than its status demands.
    """
    request_id, status, compute_us, total_us = _unpack_first(_REPLY, payload)
    features = payload[_REPLY.size :]
    if status not in (ReplyStatus.ANSWERED, ReplyStatus.FAILED, ReplyStatus.LATE):
        raise FrameError(f"status of a reply must be 0, 1 or 2, got {status}")
    expected = 4 * num_features if status == ReplyStatus.ANSWERED else 0
    if len(features) != expected:
        raise FrameError(f"features of a reply of status {status} must have {expected} bytes, got {len(features)}")
    return ReplyFrame(request_id, status, compute_us, total_us, features)


def pack_ping(ping_id: int) -> bytes:
    """Return the question for a sign of life."""
    return _pack(FrameType.PING, _PING.pack(ping_id))


def unpack_ping(payload: memoryview) -> int:
    """Return the id of a ping.

    Raises:
        FrameError: If it has another size.
    """
    ping_id: int = _unpack(_PING, payload)[0]
    return ping_id


def pack_pong(ping_id: int, peak_memory_bytes: int = 0) -> bytes:
    """Return the answer to a ping."""
    return _pack(FrameType.PONG, _PONG.pack(ping_id, peak_memory_bytes))


def unpack_pong(payload: memoryview) -> PongFrame:
    """Return a pong.

    Raises:
        FrameError: If it has another size.
    """
    return PongFrame(*_unpack(_PONG, payload))


def _pack(frame_type: FrameType, start: bytes, rest: bytes | memoryview = b"") -> bytes:
    return b"".join((_HEADER.pack(len(start) + len(rest), frame_type), start, rest))


def _unpack(layout: struct.Struct, payload: memoryview) -> tuple[Any, ...]:
    if len(payload) != layout.size:
        raise FrameError(f"a payload must have {layout.size} bytes, got {len(payload)}")
    return layout.unpack(payload)


def _unpack_first(layout: struct.Struct, payload: memoryview) -> tuple[Any, ...]:
    if len(payload) < layout.size:
        raise FrameError(f"a payload must have at least {layout.size} bytes, got {len(payload)}")
    return layout.unpack_from(payload)
