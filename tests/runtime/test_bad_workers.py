"""Workers that misbehave: what they say is refused with a reason, and the others answer."""

import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.raw_peer import PATIENCE_S, REPLY, RawPeer, fake_worker, frame, hello
from tests.helpers.stub_aggregators import (
    NUM_FEATURES,
    PLACES,
    is_right,
    stub_aggregator,
)
from tests.helpers.stub_fleet import stub_image

Behaviour = Callable[[RawPeer], object]


def after_proof(*contents: bytes, name: str = "pump", **changes: Any) -> Behaviour:
    """Return a fake worker that proves well and answers the first ping, then says what it is told to request 1."""

    def behave(peer: RawPeer) -> None:
        peer.sock.sendall(hello(name, 3, **changes))
        while True:
            kind, payload = peer.read()
            if kind == 5:
                peer.sock.sendall(frame(6, payload + bytes(8)))
            elif kind == 3:
                for content in contents:
                    peer.sock.sendall(content)

    return behave


def reply(request_id: int, status: int = 0, features: bytes = bytes(12)) -> bytes:
    """Return a reply."""
    return frame(REPLY, struct.pack("<QBII", request_id, status, 1, 2) + features)


NAN = struct.pack("<3f", 1.0, float("nan"), 0.0)
BAD_REPLIES = {
    "to another request": (reply(99), "a reply must have the id of a request that waits, got 99"),
    "too few features": (reply(1, features=bytes(8)), "must have 12 bytes, got 8"),
    "features though failed": (reply(1, status=1), "must have 0 bytes, got 12"),
    "unknown status": (reply(1, status=7, features=b""), "status of a reply must be 0, 1 or 2, got 7"),
    "oversized": (struct.pack("<IB", 2**32 - 1, REPLY), "must have at most 29 bytes, got 4294967295"),
    "a request": (frame(3, bytes(28)), "may come now, got 3"),
    "not finite": (reply(1, features=NAN), ""),
    "failed": (reply(1, status=1, features=b""), ""),
    "late": (reply(1, status=2, features=b""), ""),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_a_bad_reply_is_left_out_at_once(name: str) -> None:
    """The answer is that of the others, long before the deadline, and the state says what was wrong."""
    content, reason = BAD_REPLIES[name]
    with fake_worker(after_proof(content)) as address, stub_aggregator(pump=address) as aggregator:
        answer = aggregator.answer(stub_image())
        assert is_right(answer, stub_image(), "pump")
        assert reason in aggregator.states()[PLACES["pump"]].reason


def test_a_second_reply_breaks_the_connection() -> None:
    """A reply counts once; another to the same request is no frame that may come."""
    with fake_worker(after_proof(reply(1) + reply(1))) as address, stub_aggregator(pump=address) as aggregator:
        assert aggregator.answer(stub_image()).missing == ()
        while aggregator.states()[PLACES["pump"]].is_up:
            aggregator.step(time.monotonic_ns() + 10_000_000)
        assert "a reply must have the id" in aggregator.states()[PLACES["pump"]].reason


def greets_and_leaves(peer: RawPeer) -> None:
    """Say hello, and close the connection after the proof, as a worker that does not accept it."""
    peer.sock.sendall(hello("pump", 3))
    peer.read()


BAD_HELLOS: dict[str, tuple[Behaviour, str]] = {
    "other bundle": (after_proof(bundle="cd" * 32), "it runs bundle cdcdcdcdcdcd..., not abababababab..."),
    "other protocol": (after_proof(protocol=2), "it speaks protocol 2, not 1; export and deploy again"),
    "other device": (after_proof(name="vent"), "its device must be 'pump', got 'vent'"),
    "other features": (after_proof(features=4), "its features must be 3, got '4'"),
    "other input": (after_proof(input={"shape": [9]}), "its input must be {'shape'"),
    "another service": (lambda peer: peer.sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), "may come now, got"),
    "closed": (lambda peer: None, "closed by the other side"),
    "refusal": (greets_and_leaves, "refused the connection"),
}


@pytest.mark.parametrize("name", BAD_HELLOS)
def test_a_wrong_worker_is_not_used(name: str) -> None:
    """The state says what is wrong, and the others answer."""
    behave, reason = BAD_HELLOS[name]
    with fake_worker(behave) as address, stub_aggregator(wait=False, pump=address) as aggregator:
        until = time.monotonic() + PATIENCE_S
        while reason not in aggregator.states()[PLACES["pump"]].reason and time.monotonic() < until:
            aggregator.step(time.monotonic_ns() + 10_000_000)
        assert reason in aggregator.states()[PLACES["pump"]].reason
        assert "pump" in aggregator.answer(stub_image()).missing


@given(content=st.binary(min_size=1, max_size=120), is_proved=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_does_not_end_the_aggregator(content: bytes, is_proved: bool) -> None:
    """Whatever a worker says, images are answered without it."""
    behave: Behaviour = after_proof(content) if is_proved else lambda peer: peer.sock.sendall(content)
    with fake_worker(behave) as address, stub_aggregator(wait=False, deadline_us=200_000, pump=address) as aggregator:
        aggregator.connect(0.05)
        for _ in range(3):
            answer = aggregator.answer(stub_image())
            assert set(answer.replies) | set(answer.missing) == set(NUM_FEATURES)
