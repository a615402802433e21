"""A worker and its peers: right ones are served in turn, wrong ones are closed with a reason, none ends it."""

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.runtime.device import worker as worker_module
from planner.runtime.device.addresses import Endpoint, resolve
from planner.runtime.device.errors import DeviceError
from planner.runtime.device.inference import MAX_WAITING, Hold
from tests.helpers.raw_peer import PATIENCE_S, PING, PONG, REPLY, RawPeer, connected, frame, proof, request
from tests.helpers.stub_fleet import stub_image, stub_worker

IMAGE = stub_image().tobytes()
EXPECTED = (np.frombuffer(IMAGE, np.uint8)[:3] / np.float32(255)).astype("<f4").tobytes()


class Log:
    """Lines of a worker's log, which a test may wait for."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def wait_for(self, text: str) -> str:
        """Return the first line that has a text."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            for line in list(self.lines):
                if text in line:
                    return line
            time.sleep(0.005)
        raise AssertionError(f"no {text!r} in {self.lines}")


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log()


@pytest.fixture
def endpoint(log: Log) -> Iterator[Endpoint]:
    """The address of a worker of three features."""
    with stub_worker("pump", 3, log=log) as address:
        yield address


def serves(peer: RawPeer, request_id: int = 7) -> bool:
    """Return whether a peer gets the right answer to an image."""
    peer.sock.sendall(request(request_id, IMAGE))
    kind, payload = peer.read()
    reply_id, status, _, _ = struct.unpack_from("<QBII", payload)
    return (kind, reply_id, status, payload[17:]) == (REPLY, request_id, 0, EXPECTED)


def ask(endpoint: Endpoint) -> bool:
    """Return whether a new aggregator gets the right answer."""
    with connected(endpoint) as peer:
        peer.prove()
        return serves(peer)


def test_an_image_is_answered(endpoint: Endpoint) -> None:
    """Features come back under the request's id, image after image, and a ping is answered with the peak memory."""
    with connected(endpoint) as peer:
        peer.prove()
        assert all(serves(peer, request_id) for request_id in (1, 2, 2**64 - 1))
        peer.sock.sendall(frame(PING, struct.pack("<Q", 5)))
        kind, payload = peer.read()
        ping_id, peak = struct.unpack("<QQ", payload)
        assert (kind, ping_id) == (PONG, 5)
        assert 2**20 < peak < 2**40


def test_the_next_aggregator_is_served_after_the_first_has_gone(endpoint: Endpoint) -> None:
    """A lost peer does not end the worker, not even one that goes in the middle of a frame."""
    with connected(endpoint) as peer:
        peer.prove()
        peer.sock.sendall(request(1, IMAGE)[:9])
    assert ask(endpoint)


WRONG: dict[str, tuple[Callable[[RawPeer], object], str]] = {
    "wrong token": (lambda peer: peer.prove(token=bytes(32)), "its token is not this folder's"),
    "wrong bundle": (lambda peer: peer.prove(bundle="cd" * 32), "runs bundle cdcdcdcdcdcd..., not abababababab..."),
    "proof of another nonce": (lambda peer: peer.sock.sendall(proof(bytes(16))), "its token is not this folder's"),
    "request before the proof": (lambda peer: peer.sock.sendall(request(1, IMAGE)), "types [2] may come now, got 3"),
    "unknown type": (lambda peer: peer.sock.sendall(frame(99, b"")), "types [2] may come now, got 99"),
    "oversized": (lambda peer: peer.sock.sendall(struct.pack("<IB", 2**31, 2)), "at most 64 bytes, got 2147483648"),
    "short proof": (lambda peer: peer.sock.sendall(frame(2, b"x" * 63)), "must have 64 bytes, got 63"),
    "other protocol": (lambda peer: peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n"), "may come now"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_peer_is_closed_with_a_reason(endpoint: Endpoint, log: Log, name: str) -> None:
    """The connection is closed, the log says why, and a right peer is served afterwards."""
    act, reason = WRONG[name]
    with connected(endpoint) as peer:
        act(peer)
        assert peer.is_closed()
    log.wait_for(reason)
    assert ask(endpoint)


WRONG_LATER = {
    "image too short": (request(1, IMAGE[:-1]), "an image must have 16 bytes, got 15"),
    "image too long": (request(1, IMAGE + b"x"), "must have at most 28 bytes, got 29"),
    "second proof": (proof(bytes(16)), "may come now, got 2"),
    "reply": (frame(REPLY, bytes(17)), "may come now, got 4"),
    "long ping": (frame(PING, bytes(9)), "must have at most 8 bytes, got 9"),
    "short pong": (frame(PONG, bytes(3)), "must have 16 bytes, got 3"),
}


@pytest.mark.parametrize("name", WRONG_LATER)
def test_a_proved_peer_must_keep_to_the_frames(endpoint: Endpoint, log: Log, name: str) -> None:
    """The token does not make wrong frames right."""
    content, reason = WRONG_LATER[name]
    with connected(endpoint) as peer:
        peer.prove()
        peer.sock.sendall(content)
        assert peer.is_closed()
    log.wait_for(reason)
    assert ask(endpoint)


@given(content=st.binary(min_size=1, max_size=200), is_proved=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_does_not_end_a_worker(endpoint: Endpoint, content: bytes, is_proved: bool) -> None:
    """After any bytes, proved or not, the next aggregator is served."""
    with connected(endpoint) as peer:
        if is_proved:
            peer.prove()
        peer.sock.sendall(content)
    assert ask(endpoint)


def test_a_peer_that_proves_nothing_is_closed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow loris, a byte of its proof now and then, is closed when its time is over, and holds nobody up."""
    monkeypatch.setattr(worker_module, "_PROOF_SECONDS", 0.5)
    with stub_worker("pump", 3, log=log) as endpoint, connected(endpoint) as slow:
        slow.read()
        slow.sock.sendall(b"\x40")
        assert ask(endpoint)
        assert slow.is_closed()
    assert "no proof of the token within 0.5 s" in log.wait_for("no proof")


def test_many_silent_peers_do_not_keep_a_right_one_out(endpoint: Endpoint) -> None:
    """The oldest of those that prove nothing make room."""
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(endpoint)) for _ in range(30)]
        assert ask(endpoint)
        for peer in silent[:10]:
            assert peer.is_closed()


def test_a_second_aggregator_is_refused_while_the_first_lives(endpoint: Endpoint, log: Log) -> None:
    """The worker pings the first one; its pong keeps its place."""
    with connected(endpoint) as first, connected(endpoint) as second:
        first.prove()
        assert serves(first)
        second.prove()
        kind, payload = first.read()
        assert kind == PING
        first.sock.sendall(frame(PONG, payload + bytes(8)))
        assert second.is_closed()
        assert serves(first)
    assert "refused, as 127.0.0.1:" in log.wait_for("refused")


def test_a_second_aggregator_takes_the_place_of_a_silent_one(endpoint: Endpoint, log: Log) -> None:
    """A first one that does not answer, as when its cable was pulled, is closed; the second asked meanwhile."""
    with connected(endpoint) as first, connected(endpoint) as second:
        first.prove()
        assert serves(first)
        second.prove()
        assert serves(second)
        assert first.is_closed()
    log.wait_for("silent for 0.5 s while another aggregator asks")


def test_a_second_aggregator_is_served_when_the_first_goes(endpoint: Endpoint) -> None:
    """A place that becomes free is taken at once."""
    with connected(endpoint) as second:
        with connected(endpoint) as first:
            first.prove()
            assert serves(first)
            second.prove()
            first.read()
        assert serves(second)


def test_what_waited_too_long_is_dropped() -> None:
    """While one image is computed, others wait; one whose deadline passes meanwhile is not computed: status 2."""
    release, computed = threading.Event(), []

    def features(image: memoryview) -> bytes:
        computed.append(image[0])
        assert release.wait(PATIENCE_S)
        return bytes(12)

    with stub_worker("pump", 3, features) as endpoint, connected(endpoint) as peer:
        peer.prove()
        images = [bytes([i]) + IMAGE[1:] for i in range(3)]
        peer.sock.sendall(request(1, images[0]) + request(2, images[1], deadline_us=1000) + request(3, images[2]))
        # The ping is answered while an image is computed, and shows that all requests were read.
        peer.sock.sendall(frame(PING, bytes(8)))
        assert peer.read()[0] == PONG
        time.sleep(0.01)
        release.set()
        replies = [struct.unpack_from("<QB", peer.read()[1]) for _ in range(3)]
    assert replies == [(1, 0), (2, 2), (3, 0)]
    assert computed == [0, 2]


def test_a_failure_is_told_and_the_next_image_answered(log: Log) -> None:
    """An image that cannot be computed has status 1."""

    def features(image: memoryview) -> bytes:
        if image[0] == 0:
            raise DeviceError("out of memory.")
        return bytes(12)

    with stub_worker("pump", 3, features, log=log) as endpoint, connected(endpoint) as peer:
        peer.prove()
        peer.sock.sendall(request(1, bytes(16)) + request(2, b"\1" * 16))
        assert [struct.unpack_from("<QB", peer.read()[1]) for _ in range(2)] == [(1, 1), (2, 0)]
    log.wait_for("an image could not be computed: out of memory.")


def test_too_many_requests_at_once_are_refused(log: Log) -> None:
    """A peer that never waits for replies cannot fill the memory."""
    release = threading.Event()

    def features(image: memoryview) -> bytes:
        release.wait(PATIENCE_S)
        return bytes(12)

    with stub_worker("pump", 3, features, log=log) as endpoint, connected(endpoint) as peer:
        peer.prove()
        peer.sock.sendall(b"".join(request(i, IMAGE) for i in range(MAX_WAITING + 2)))
        log.wait_for(f"at most {MAX_WAITING} requests may wait")
        release.set()


def test_times_are_held_to_the_plan() -> None:
    """Send, compute and return take at least their planned time, and the reply says so."""
    with stub_worker("pump", 3, hold=Hold(20_000, 30_000, 10_000)) as endpoint, connected(endpoint) as peer:
        peer.prove()
        began = time.monotonic()
        peer.sock.sendall(request(1, IMAGE))
        _, _, compute_us, total_us = struct.unpack_from("<QBII", peer.read()[1])
        elapsed_us = (time.monotonic() - began) * 1e6
    assert compute_us >= 30_000
    assert 60_000 <= total_us <= elapsed_us


def test_outside_loopback_a_certificate_is_needed() -> None:
    """A worker without TLS does not listen where others could."""
    with (
        pytest.raises(DeviceError, match=r"0\.0\.0\.0:0: outside loopback, the worker must have a certificate"),
        stub_worker("pump", 3, listen="0.0.0.0:0"),
    ):
        pass


def test_a_port_in_use_is_said(endpoint: Endpoint) -> None:
    """A second worker on the same port is refused in one sentence."""
    with (
        pytest.raises(DeviceError, match=rf"127\.0\.0\.1:{endpoint.port}: cannot be listened on \(Address already"),
        stub_worker("pump", 3, listen=str(endpoint)),
    ):
        pass


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "::1:80", "h:70000", "h:-1", "h:8o", "[::1]80"])
def test_malformed_addresses_are_refused(text: str) -> None:
    """An address is HOST:PORT."""
    with pytest.raises(DeviceError, match=r"address must be HOST:PORT, such as 192\.168\.0\.11:7447, got"):
        resolve(text)


def test_addresses_are_resolved() -> None:
    """IPv4, IPv6 in brackets, and names."""
    assert str(resolve("127.0.0.1:80")) == "127.0.0.1:80"
    assert str(resolve("[::1]:80")) == "[::1]:80"
    assert resolve("localhost:80").is_loopback
    assert not resolve("192.0.2.1:80").is_loopback
    with pytest.raises(DeviceError, match="the host cannot be found"):
        resolve("no.such.host.invalid:80")
