"""Frames: a round trip through any pieces, and an error of their own for whatever is no frame."""

import contextlib
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.runtime.device import frames
from planner.runtime.device.frames import FrameError, FrameReader, FrameType

LIMITS: dict[int, int] = {FrameType.REQUEST: 100_000, FrameType.PING: 8, FrameType.PONG: 16}
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


def read(reader: FrameReader, content: bytes, cuts: list[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the frames of some bytes that arrive in pieces of these sizes, the last of them again and again."""
    view = memoryview(content)
    while view:
        size = max(1, cuts.pop(0) if len(cuts) > 1 else cuts[0])
        room = reader.room()
        piece = view[: min(size, len(room))]
        room[: len(piece)] = piece
        reader.received(len(piece))
        view = view[len(piece) :]
        while (frame := reader.next_frame()) is not None:
            yield frame[0], bytes(frame[1])


CUTS = st.lists(st.integers(1, 5000), min_size=1, max_size=8)
PAYLOADS = st.lists(st.tuples(st.just(int(FrameType.REQUEST)), st.binary(max_size=300)), max_size=8)


@settings(deadline=None)
@given(PAYLOADS, CUTS, st.integers(0, 90_000))
def test_frames_arrive_whole_however_they_are_cut(frames_: list[tuple[int, bytes]], cuts: list[int], big: int) -> None:
    """Types and payloads come out as they went in, in their order, a long one among them."""
    sent = [*frames_, (int(FrameType.REQUEST), bytes(range(256)) * (big // 256)), *frames_]
    content = b"".join(struct.pack("<IB", len(payload), kind) + payload for kind, payload in sent)
    assert list(read(FrameReader(LIMITS), content, cuts)) == sent


@settings(deadline=None)
@given(st.binary(max_size=400), CUTS)
def test_random_bytes_are_frames_or_an_error(content: bytes, cuts: list[int]) -> None:
    """Nothing but `FrameError` is raised, and what is returned keeps to the limits."""
    try:
        for kind, payload in read(FrameReader(LIMITS), content, cuts):
            assert len(payload) <= LIMITS[FrameType(kind)]
    except FrameError:
        pass


@pytest.mark.parametrize("kind", FrameType)
@settings(deadline=None)
@given(payload=st.binary(max_size=6000), seed=st.integers(1, 40))
def test_random_payloads_are_read_or_an_error(kind: FrameType, payload: bytes, seed: int) -> None:
    """Whatever a frame holds, reading it raises nothing but `FrameError`."""
    view = memoryview(payload)
    readers: dict[FrameType, Callable[[], object]] = {
        FrameType.HELLO: lambda: frames.unpack_hello(view),
        FrameType.PROOF: lambda: frames.unpack_proof(view),
        FrameType.REQUEST: lambda: frames.unpack_request(view, seed),
        FrameType.REPLY: lambda: frames.unpack_reply(view, seed),
        FrameType.PING: lambda: frames.unpack_ping(view),
        FrameType.PONG: lambda: frames.unpack_pong(view),
    }
    with contextlib.suppress(FrameError):
        readers[kind]()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_hello_with_any_end_is_read_or_an_error(end: bytes) -> None:
    """JSON that is none, nested too deeply or no object is an error of a frame."""
    for text in (end, b"[" * 3000, b'{"a":' * 500, b"3", b"null"):
        start = struct.pack("<4sH16s32s", b"VITP", frames.PROTOCOL, bytes(16), bytes(32))
        with contextlib.suppress(FrameError):
            assert isinstance(frames.unpack_hello(memoryview(start + text)).about, dict)


def only_payload(content: bytes, limits: dict[int, int]) -> memoryview:
    """Return the payload of the one frame of some bytes."""
    ((_, payload),) = read(FrameReader(limits), content, [len(content)])
    return memoryview(payload)


@settings(deadline=None)
@given(U64, U32, st.binary(min_size=7, max_size=7))
def test_requests_make_a_round_trip(request_id: int, deadline_us: int, image: bytes) -> None:
    """Id, deadline and image come out as they went in."""
    payload = only_payload(
        frames.pack_request(request_id, deadline_us, memoryview(image)), frames.limits_of_worker(len(image))
    )
    assert tuple(frames.unpack_request(payload, 7)) == (request_id, deadline_us, image)


@settings(deadline=None)
@given(U64, U32, U32, st.binary(min_size=8, max_size=8))
def test_replies_make_a_round_trip(reply_id: int, compute_us: int, total_us: int, features: bytes) -> None:
    """Id, status, times and features come out as they went in."""
    payload = only_payload(
        frames.pack_reply(reply_id, 0, compute_us, total_us, features), frames.limits_of_aggregator(2)
    )
    assert tuple(frames.unpack_reply(payload, 2)) == (reply_id, 0, compute_us, total_us, features)


def test_hellos_make_a_round_trip() -> None:
    """Nonce, bundle and what is told about the worker come out as they went in."""
    packed = frames.pack_hello(b"n" * 16, b"b" * 32, {"device": "pümp", "features": 3})
    hello = frames.unpack_hello(only_payload(packed, frames.limits_before_hello()))
    assert hello == (frames.PROTOCOL, b"n" * 16, b"b" * 32, {"device": "pümp", "features": 3})


def test_the_proof_is_an_hmac_of_the_nonce() -> None:
    """The proof equals the value that RFC 4231 gives as its second test case."""
    digest = frames.proof_of(b"Jefe", b"what do ya want for nothing?").hex()
    assert digest == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_an_oversized_frame_takes_no_memory() -> None:
    """A frame that claims more than may come is refused at its header."""
    header = struct.pack("<IB", 2**32 - 1, FrameType.PING)
    with pytest.raises(FrameError, match="type 5 must have at most 8 bytes, got 4294967295"):
        list(read(FrameReader(LIMITS), header, [5]))


def test_no_limit_is_above_64_mib() -> None:
    """64 MiB are the most, whatever an image would have."""
    header = struct.pack("<IB", 64 * 2**20 + 1, FrameType.REQUEST)
    with pytest.raises(FrameError, match="must have at most"):
        list(read(FrameReader(frames.limits_of_worker(2**30)), header, [5]))


def test_a_frame_of_another_stage_is_refused() -> None:
    """A request before the proof is refused."""
    reader = FrameReader(frames.limits_before_proof())
    with pytest.raises(FrameError, match=r"frames of types \[2\] may come now, got 3"):
        list(read(reader, struct.pack("<IB", 0, FrameType.REQUEST), [5]))


def test_a_hello_that_is_too_long_is_not_sent() -> None:
    """What is told about a worker has 4 KiB at most."""
    with pytest.raises(FrameError, match="at most 4096 bytes, got 5013"):
        frames.pack_hello(bytes(16), bytes(32), {"device": "x" * 5000})


def test_times_beyond_an_hour_are_cut_off() -> None:
    """A time that has no room in the frame becomes the largest that has."""
    payload = only_payload(frames.pack_reply(1, 2, 2**40, 2**40), frames.limits_of_aggregator(0))
    assert frames.unpack_reply(payload, 5)[2:4] == (2**32 - 1, 2**32 - 1)
