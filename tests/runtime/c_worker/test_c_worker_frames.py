"""A C worker and its peers, as the Python worker's tests have them: right ones are served, wrong ones closed."""

import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.runtime.device.addresses import Endpoint
from tests.helpers.c_workers import (
    FEATURES,
    IMAGE,
    RunningWorker,
    build_impatient,
    running,
    serves,
    serves_new,
    write_stub_folder,
)
from tests.helpers.raw_peer import HELLO, PING, PONG, REPLY, RawPeer, connected, frame, proof, request
from tests.helpers.stub_fleet import BUNDLE, stub_features, stub_image


def ask(endpoint: Endpoint) -> bool:
    """Return whether a new aggregator gets the right answer."""
    with connected(endpoint) as peer:
        return serves_new(peer)


def test_hello_tells_what_runs(worker: RunningWorker) -> None:
    """Magic, protocol, bundle, and the same words as a Python worker's; two nonces differ."""
    nonces = set()
    for _ in range(2):
        with connected(worker.endpoint) as peer:
            kind, payload = peer.read()
        magic, protocol, nonce, bundle = struct.unpack_from("<4sH16s32s", payload)
        assert (kind, magic, protocol, bundle.hex()) == (HELLO, b"VITP", 1, BUNDLE)
        image = {"shape": [1, 4, 4], "dtype": "uint8"}
        told = {"device": "pump", "engine": "c", "precision": "float32", "input": image, "features": 3, "held": []}
        assert json.loads(payload[54:]) == told
        nonces.add(nonce)
    assert len(nonces) == 2


def test_an_image_is_answered(worker: RunningWorker) -> None:
    """Features come back under the request's id, image after image, and a ping is answered with the peak memory."""
    with connected(worker.endpoint) as peer:
        peer.prove()
        assert all(serves(peer, request_id) for request_id in (1, 2, 2**64 - 1))
        peer.sock.sendall(frame(PING, struct.pack("<Q", 2**63 + 5)))
        kind, payload = peer.read()
        ping_id, peak = struct.unpack("<QQ", payload)
        assert (kind, ping_id) == (PONG, 2**63 + 5)
        status = Path(f"/proc/{worker.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        assert 0 < peak <= int(status) * 1024


def test_frames_may_come_in_pieces_and_together(worker: RunningWorker) -> None:
    """Bytes of a connection have no borders: one at a time, and three requests with a ping at once."""
    with connected(worker.endpoint) as peer:
        peer.prove()
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(1, IMAGE):
            peer.sock.sendall(bytes([byte]))
        assert peer.read()[1][17:] == FEATURES
        images = [stub_image(seed).tobytes() for seed in range(3)]
        together = b"".join(request(seed, image) for seed, image in enumerate(images))
        peer.sock.sendall(together + frame(PING, bytes(8)))
        got = [peer.read() for _ in range(4)]
        assert [payload[17:] for _, payload in got[:3]] == [stub_features(3)(memoryview(i)) for i in images]
        assert got[3][0] == PONG


def test_the_next_aggregator_is_served_after_the_first_has_gone(worker: RunningWorker) -> None:
    """A lost peer does not end the worker, not even one that goes in the middle of a frame."""
    with connected(worker.endpoint) as peer:
        peer.prove()
        peer.sock.sendall(request(1, IMAGE)[:9])
    assert ask(worker.endpoint)
    with connected(worker.endpoint) as peer:
        peer.prove()
        # Gone before the reply is taken, with a reset.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.sendall(request(1, IMAGE) * 50)
    assert ask(worker.endpoint)


WRONG: dict[str, tuple[Callable[[RawPeer], object], str]] = {
    "wrong token": (lambda peer: peer.prove(token=bytes(32)), "its token is not this device's"),
    "wrong bundle": (lambda peer: peer.prove(bundle="cd" * 32), "it runs another bundle"),
    "proof of another nonce": (lambda peer: peer.sock.sendall(proof(bytes(16))), "its token is not this device's"),
    "request before the proof": (lambda peer: peer.sock.sendall(request(1, IMAGE)), "type may not come now"),
    "ping before the proof": (lambda peer: peer.sock.sendall(frame(PING, bytes(8))), "type may not come now"),
    "unknown type": (lambda peer: peer.sock.sendall(frame(99, b"")), "type may not come now"),
    "oversized": (lambda peer: peer.sock.sendall(struct.pack("<IB", 2**32 - 1, 2)), "have the size of its type"),
    "short proof": (lambda peer: peer.sock.sendall(frame(2, b"x" * 63)), "have the size of its type"),
    "other protocol": (lambda peer: peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n"), "type may not come now"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_peer_is_closed_with_a_reason(worker: RunningWorker, name: str) -> None:
    """The connection is closed, the log says why, and a right peer is served afterwards."""
    act, reason = WRONG[name]
    with connected(worker.endpoint) as peer:
        act(peer)
        assert peer.is_closed()
    worker.wait_for(reason)
    assert ask(worker.endpoint)


WRONG_LATER = {
    "image too short": (request(1, IMAGE[:-1]), "have the size of its type"),
    "image too long": (request(1, IMAGE + b"x"), "have the size of its type"),
    "request without an image": (frame(3, b""), "have the size of its type"),
    "second proof": (proof(bytes(16)), "type may not come now"),
    "reply": (frame(REPLY, bytes(17)), "type may not come now"),
    "long ping": (frame(PING, bytes(9)), "have the size of its type"),
    "short pong": (frame(PONG, bytes(3)), "have the size of its type"),
}


@pytest.mark.parametrize("name", WRONG_LATER)
def test_a_proved_peer_must_keep_to_the_frames(worker: RunningWorker, name: str) -> None:
    """The token does not make wrong frames right."""
    content, reason = WRONG_LATER[name]
    with connected(worker.endpoint) as peer:
        peer.prove()
        peer.sock.sendall(content)
        assert peer.is_closed()
    worker.wait_for(reason)
    assert ask(worker.endpoint)


FRAMES = st.sampled_from([request(1, IMAGE), frame(PING, bytes(8)), frame(PONG, bytes(16)), proof(bytes(16))])
# Whole frames, cut ones, and bytes of no meaning, in any order.
CONTENT = st.lists(FRAMES | st.binary(max_size=40) | st.tuples(FRAMES, st.integers(0, 90)).map(lambda c: c[0][: c[1]]))


@given(content=CONTENT.map(b"".join), is_proved=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_does_not_end_a_worker(worker: RunningWorker, content: bytes, is_proved: bool) -> None:
    """After any bytes, proved or not, the next aggregator is served; the sanitizers have nothing to say."""
    with connected(worker.endpoint) as peer:
        if is_proved:
            peer.prove()
        # A worker that has seen enough may have closed already.
        with suppress(ConnectionError):
            peer.sock.sendall(content)
    assert ask(worker.endpoint)


def test_a_peer_that_proves_nothing_is_closed(stub_folder: Path, tmp_path: Path) -> None:
    """A slow loris, a byte of its proof now and then, is closed when its time is over, and holds nobody up."""
    folder = write_stub_folder(tmp_path / "pump")
    with running(build_impatient(folder, 500), folder) as worker, connected(worker.endpoint) as slow:
        slow.read()
        slow.sock.sendall(b"\x40")
        assert slow.is_closed()
        worker.wait_for("no proof of the token in time")


def test_many_silent_peers_do_not_keep_a_right_one_out(worker: RunningWorker) -> None:
    """The oldest of those that prove nothing make room."""
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(worker.endpoint)) for _ in range(30)]
        assert ask(worker.endpoint)
        for peer in silent[:20]:
            assert peer.is_closed()


def test_a_second_aggregator_is_refused_while_the_first_lives(worker: RunningWorker) -> None:
    """The worker pings the first one; its pong keeps its place."""
    with connected(worker.endpoint) as first, connected(worker.endpoint) as second:
        first.prove()
        assert serves(first)
        second.prove()
        kind, payload = first.read()
        assert kind == PING
        first.sock.sendall(frame(PONG, payload + bytes(8)))
        assert second.is_closed()
        assert serves(first)
    worker.wait_for("refused, as another aggregator is served")


def test_a_second_aggregator_takes_the_place_of_a_silent_one(worker: RunningWorker) -> None:
    """A first one that does not answer, as when its cable was pulled, is closed; the second asked meanwhile."""
    with connected(worker.endpoint) as first, connected(worker.endpoint) as second:
        first.prove()
        assert serves(first)
        second.prove()
        assert serves(second)
        assert first.is_closed()
    worker.wait_for("silent for 0.5 s while another aggregator asks")


def test_a_second_aggregator_is_served_when_the_first_goes(worker: RunningWorker) -> None:
    """A place that becomes free is taken at once."""
    with connected(worker.endpoint) as second:
        with connected(worker.endpoint) as first:
            first.prove()
            assert serves(first)
            second.prove()
            first.read()
        assert serves(second)


def test_what_waited_too_long_is_dropped(program: Path, stub_folder: Path) -> None:
    """While one image is computed, others wait; one whose deadline passes meanwhile is not computed: status 2."""
    hold = ("--hold", "compute=200000")
    with running(program, stub_folder, *hold) as worker, connected(worker.endpoint) as peer:
        peer.prove()
        peer.sock.sendall(request(1, IMAGE) + request(2, IMAGE, deadline_us=1000) + request(3, IMAGE))
        replies = [struct.unpack_from("<QB", peer.read()[1]) for _ in range(3)]
    assert replies == [(1, 0), (2, 2), (3, 0)]


def test_pings_are_answered_while_an_image_is_held(program: Path, stub_folder: Path) -> None:
    """The pong overtakes the reply; a held hello says so."""
    hold = ("--hold", "send=100000,return=100000")
    with running(program, stub_folder, *hold) as worker, connected(worker.endpoint) as peer:
        _, payload = peer.read()
        assert json.loads(payload[54:])["held"] == ["send", "return"]
        peer.sock.sendall(proof(payload[6:22]) + request(1, IMAGE) + frame(PING, bytes(8)))
        assert [peer.read()[0] for _ in range(2)] == [PONG, REPLY]


def test_a_peer_that_goes_while_its_image_is_computed_leaves_its_place(program: Path, stub_folder: Path) -> None:
    """Its reply goes to nobody, least of all to the next aggregator in its place."""
    hold = ("--hold", "compute=200000")
    with running(program, stub_folder, *hold) as worker:
        with connected(worker.endpoint) as first:
            first.prove()
            first.sock.sendall(request(1, IMAGE))
        with connected(worker.endpoint) as second:
            second.prove()
            assert serves(second, 2)


def test_times_are_held_to_the_plan_and_marked(program: Path, stub_folder: Path, tmp_path: Path) -> None:
    """Send, compute and return take at least their planned time; the reply and the marks say so."""
    marks = tmp_path / "marks"
    hold = ("--hold", "send=20000,compute=30000,return=10000", "--marks", str(marks))
    with running(program, stub_folder, *hold) as worker, connected(worker.endpoint) as peer:
        peer.prove()
        began = time.monotonic_ns()
        peer.sock.sendall(request(9, IMAGE))
        _, _, compute_us, total_us = struct.unpack_from("<QBII", peer.read()[1])
        ended = time.monotonic_ns()
    assert compute_us >= 30_000
    assert 60_000 <= total_us <= (ended - began) / 1000
    request_id, *moments = struct.unpack("<6Q", marks.read_bytes())
    assert request_id == 9
    assert began - 1000 <= moments[0]
    assert moments[-1] <= ended
    assert np.all(np.diff(moments) >= [20_000_000 - 1000, 0, 0, 10_000_000])
    assert moments[3] - moments[1] >= 30_000_000
