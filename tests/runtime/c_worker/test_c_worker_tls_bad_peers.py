"""Peers of a C worker with TLS that are slow, plain, old or made of mutated bytes: none of them holds others up."""

import random
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.helpers.c_workers import IMAGE, RunningWorker, build_impatient, running
from tests.helpers.raw_peer import RawPeer, connected, request
from tests.helpers.tls_workers import asks, client_hello, trusting, write_tls_folder

# Types of TLS records, and an alert.
ALERT, HANDSHAKE, PROTOCOL_VERSION = 0x15, 0x16, 70


def test_a_plain_peer_is_closed(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """Beyond loopback a peer without TLS is told nothing, not even the hello, and the next one is served."""
    with connected(tls_worker.endpoint) as peer:
        peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            assert b"VITP" not in peer.sock.recv(4096)
    tls_worker.wait_for("no TLS handshake: ")
    assert asks(tls_worker, certificates["pump"])


def test_peers_that_do_not_go_on_hold_nobody_up(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """Neither those that say nothing nor those with half a ClientHello; the oldest of many make room."""
    half = client_hello()[:60]
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(tls_worker.endpoint)) for _ in range(6)]
        for peer in slow[::2]:
            peer.sock.sendall(half)
        assert asks(tls_worker, certificates["pump"])
        slow += [stack.enter_context(connected(tls_worker.endpoint)) for _ in range(30)]
        assert asks(tls_worker, certificates["pump"])
        assert all(peer.is_closed() for peer in slow[:20])
    tls_worker.wait_for("too many peers whose TLS handshake is not done")


def test_a_handshake_has_a_deadline(certificates: dict[str, Path], tmp_path: Path) -> None:
    """A peer that does not go on is closed when its time is over."""
    folder = write_tls_folder(tmp_path / "pump", certificates["pump"])
    with running(build_impatient(folder, 300), folder) as worker, connected(worker.endpoint) as slow:
        slow.sock.sendall(client_hello()[:60])
        assert slow.is_closed()
        worker.wait_for("no TLS handshake in time")


def test_old_tls_is_refused(tls_worker: RunningWorker) -> None:
    """A ClientHello of TLS 1.2 is answered; the same of TLS 1.1 is refused for its version."""
    hello = client_hello()
    for version, record in ((b"\x03\x03", HANDSHAKE), (b"\x03\x02", ALERT)):
        with connected(tls_worker.endpoint) as peer:
            peer.sock.sendall(hello[:9] + version + hello[11:])
            answer = peer.sock.recv(4096)
        assert answer[0] == record
        if record == ALERT:
            assert answer[6] == PROTOCOL_VERSION


def mutated(draw: random.Random, content: bytes) -> bytes:
    """Return bytes of no meaning, or a content that is cut, or some of whose bytes are others."""
    kind = draw.randrange(4)
    if kind == 0:
        return draw.randbytes(draw.randrange(1, 400))
    if kind == 1:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.randrange(1, 8)):
        changed[draw.randrange(len(changed))] = draw.choice((0, 1, 0x7F, 0xFF, draw.randrange(256)))
    return bytes(changed) if kind == 2 else bytes(changed) + draw.randbytes(draw.randrange(200))


def send_and_end(peer: RawPeer, content: bytes) -> None:
    """Send bytes, say that there are no more, and wait until the connection is closed."""
    with suppress(OSError):
        peer.sock.sendall(content)
        peer.sock.shutdown(socket.SHUT_WR)
    assert peer.is_closed()


def test_mutated_client_hellos_do_not_end_a_worker(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """After each the connection is closed, in the end a right peer is served; the sanitizers have nothing to say."""
    draw, hello = random.Random(0), client_hello()
    for _ in range(300):
        with connected(tls_worker.endpoint) as peer:
            send_and_end(peer, mutated(draw, hello))
    assert asks(tls_worker, certificates["pump"])


def next_flight(client: ssl.SSLObject, peer: RawPeer, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> bytes:
    """Return what a client has to send next, after it has read from its worker what it needs for that."""
    while not outgoing.pending:
        try:
            client.do_handshake()
            client.read(5)
            client.write(request(1, IMAGE))
        except ssl.SSLWantReadError:
            if not outgoing.pending:
                part = peer.sock.recv(65_536)
                assert part
                incoming.write(part)
    return outgoing.read()


def test_mutated_flights_do_not_end_a_worker(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """The same for what comes after the ClientHello: the key exchange, and a frame under way to a worker."""
    draw = random.Random(1)
    for number in range(24):
        with connected(tls_worker.endpoint) as peer:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = trusting(certificates["pump"]).wrap_bio(incoming, outgoing)
            for _ in range(1 + number % 2):
                peer.sock.sendall(next_flight(client, peer, incoming, outgoing))
            send_and_end(peer, mutated(draw, next_flight(client, peer, incoming, outgoing)))
    assert asks(tls_worker, certificates["pump"])
