"""TLS of a C worker: the certificate that is pinned, nothing in plain beyond loopback, and no peer holds others up.

A test has no network but loopback. So the worker is built to take 127.9.0.0/16 alone for loopback: 127.0.0.1 is beyond
it, and a peer that connects from 127.9.0.1 is not.
"""

import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from planner.runtime.aggregator import Aggregator
from planner.runtime.device.addresses import Endpoint
from tests.helpers.c_workers import STRICT, RunningWorker, build, has_mbed_tls, running, write_stub_folder
from tests.helpers.raw_peer import HELLO, PATIENCE_S, REPLY, RawPeer, connected, request
from tests.helpers.stub_fleet import BUNDLE, TOKEN, stub_deployment, stub_features, stub_image

pytest.importorskip("cryptography")

from planner.runtime.certificates import make_certificate

IMAGE = stub_image().tobytes()
FEATURES = stub_features(3)(memoryview(IMAGE))
# Types of TLS records, and an alert.
ALERT, HANDSHAKE, PROTOCOL_VERSION = 0x15, 0x16, 70
BEYOND, LOOPBACK = "127.0.0.1", "127.9.0.1"


@pytest.fixture(scope="module", autouse=True)
def mbed_tls(compiler: None) -> None:
    """Leave the tests out where there is no Mbed TLS, but never where changes are judged."""
    if not has_mbed_tls() and not os.environ.get("CI"):
        pytest.skip("no Mbed TLS")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates of two devices, each with its key beside it."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("pump", "other"):
        made = make_certificate()
        (folder / f"{name}.pem").write_bytes(made.certificate)
        (folder / f"{name}.key").write_bytes(made.key)
    return {name: folder / f"{name}.pem" for name in ("pump", "other")}


def write_tls_folder(folder: Path, certificate: Path) -> Path:
    """Write the folder of a C worker that speaks TLS and takes 127.9.0.0/16 for loopback, and return it."""
    write_stub_folder(folder, speaks_tls=True)
    (folder / "certificate.pem").write_bytes(certificate.read_bytes())
    (folder / "key.pem").write_bytes(certificate.with_suffix(".key").read_bytes())
    source = folder / "address.c"
    usual, narrowed = ">> 24 == 127;", ">> 16 == 0x7f09;"
    assert source.read_text().count(usual) == 1
    source.write_text(source.read_text().replace(usual, narrowed))
    return folder


@pytest.fixture(scope="module")
def tls_folder(certificates: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a device `pump`; not to be changed."""
    return write_tls_folder(tmp_path_factory.mktemp("c-worker-tls") / "pump", certificates["pump"])


@pytest.fixture(scope="module")
def tls_program(tls_folder: Path) -> Path:
    """Worker of that folder, built with sanitizers and without any warning."""
    return build(tls_folder)


@pytest.fixture
def tls_worker(tls_program: Path, tls_folder: Path) -> Iterator[RunningWorker]:
    """A worker whose address counts as one beyond loopback."""
    with running(tls_program, tls_folder) as worker:
        yield worker


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the aggregator, too, take loopback for the network."""
    monkeypatch.setattr(Endpoint, "is_loopback", property(lambda self: False))


def trusting(certificate: Path) -> ssl.SSLContext:
    """Return TLS of a client that accepts one certificate alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate)
    return context


@contextmanager
def secured(endpoint: Endpoint, certificate: Path) -> Iterator[RawPeer]:
    """Connect to a worker by TLS."""
    with connected(endpoint) as plain, trusting(certificate).wrap_socket(plain.sock) as sock:
        yield RawPeer(sock)


def serves(peer: RawPeer) -> bool:
    """Return whether a peer that has just connected gets the right answer to an image."""
    peer.prove()
    peer.sock.sendall(request(1, IMAGE))
    kind, payload = peer.read()
    return kind == REPLY and payload[17:] == FEATURES


def asks(worker: RunningWorker, certificate: Path) -> bool:
    """Return whether a new peer with TLS gets the right answer."""
    with secured(worker.endpoint, certificate) as peer:
        return serves(peer)


def client_hello() -> bytes:
    """Return the ClientHello of OpenSSL for TLS 1.2, always with the same random number."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    content = outgoing.read()
    # Record (5), type and length (4), version (2), random number (32).
    return content[:11] + bytes(range(32)) + content[43:]


@pytest.mark.usefixtures("beyond")
def test_the_aggregator_is_answered_through_tls(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """With the pinned certificate, answers are those of a Python worker; TLS is 1.2 at least."""
    deployment = stub_deployment(["pump"], [3], certificates=certificates)
    images = [stub_image(seed) for seed in range(20)]
    with Aggregator(deployment, {"pump": str(tls_worker.endpoint)}, 60_000_000) as aggregator:
        assert aggregator.connect(PATIENCE_S) == ()
        answers = list(aggregator.answers(images, in_flight=5))
        assert all(answer.missing == () for answer in answers)
    with secured(tls_worker.endpoint, certificates["pump"]) as peer:
        assert isinstance(peer.sock, ssl.SSLSocket)
        assert peer.sock.version() in ("TLSv1.2", "TLSv1.3")
        assert serves(peer)


@pytest.mark.usefixtures("beyond")
def test_another_certificate_is_refused(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """The aggregator sends neither proof nor image to a worker with another key than the exported one."""
    deployment = stub_deployment(["pump"], [3], certificates={"pump": certificates["other"]})
    with Aggregator(deployment, {"pump": str(tls_worker.endpoint)}, 50_000) as aggregator:
        until = time.monotonic() + PATIENCE_S
        while "certificate" not in aggregator.states()[0].reason and time.monotonic() < until:
            aggregator.step(time.monotonic_ns() + 10_000_000)
        assert "not the one that was exported" in aggregator.states()[0].reason
    tls_worker.wait_for("no TLS handshake: ")
    assert not any("served" in line for line in tls_worker.lines)


def test_a_plain_peer_is_closed(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """Beyond loopback a peer without TLS is told nothing, not even the hello, and the next one is served."""
    with connected(tls_worker.endpoint) as peer:
        peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            assert b"VITP" not in peer.sock.recv(4096)
    tls_worker.wait_for("no TLS handshake: ")
    assert asks(tls_worker, certificates["pump"])


@contextmanager
def from_loopback(endpoint: Endpoint) -> Iterator[RawPeer]:
    """Connect to a worker from an address that it takes for loopback."""
    address = (endpoint.host, endpoint.port)
    with socket.create_connection(address, PATIENCE_S, source_address=(LOOPBACK, 0)) as sock:
        yield RawPeer(sock)


def test_the_same_machine_speaks_plainly(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """On whichever address the worker listens, a peer over loopback has no TLS, as with a Python worker."""
    with from_loopback(tls_worker.endpoint) as plain:
        assert serves(plain)
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


def test_bytes_that_were_decrypted_already_are_read(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """Many requests come in one record, and no socket tells of those after the first."""
    with secured(tls_worker.endpoint, certificates["pump"]) as peer:
        assert serves(peer)
        images = [stub_image(seed).tobytes() for seed in range(300)]
        content = b"".join(request(i, image) for i, image in enumerate(images))
        peer.sock.sendall(content)
        until = time.monotonic() + PATIENCE_S
        for i, image in enumerate(images):
            kind, payload = peer.read()
            assert (kind, struct.unpack_from("<Q", payload)) == (REPLY, (i,))
            assert payload[17:] == stub_features(3)(memoryview(image))
    # A worker that waits for the socket before each is no quicker than four a second.
    assert time.monotonic() < until


def test_a_handshake_has_a_deadline(certificates: dict[str, Path], tmp_path: Path) -> None:
    """A peer that does not go on is closed when its time is over."""
    folder = write_tls_folder(tmp_path / "pump", certificates["pump"])
    impatient = build(folder, f"{STRICT} -O0 -DVIT_PROOF_MS=300")
    with running(impatient, folder) as worker, connected(worker.endpoint) as slow:
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


@contextmanager
def recording(endpoint: Endpoint, source: str) -> Iterator[tuple[Endpoint, bytearray]]:
    """Pass one connection on to a worker, from an address, and record all bytes of both directions."""
    wire = bytearray()

    def copy(incoming: socket.socket, outgoing: socket.socket) -> None:
        with suppress(OSError):
            while content := incoming.recv(65_536):
                wire.extend(content)
                outgoing.sendall(content)
            outgoing.shutdown(socket.SHUT_WR)

    def run() -> None:
        client, _ = listener.accept()
        address = (endpoint.host, endpoint.port)
        with client, socket.create_connection(address, source_address=(source, 0)) as worker:
            back = threading.Thread(target=copy, args=(worker, client))
            back.start()
            copy(client, worker)
            back.join(PATIENCE_S)

    with socket.create_server((BEYOND, 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield Endpoint(socket.AF_INET, *listener.getsockname()), wire
        thread.join(PATIENCE_S)


def test_nothing_is_in_plain_on_the_wire(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """Hello, image and features are to be read on the wire without TLS, and not with it; the token never is."""
    said = (b"VITP", bytes.fromhex(BUNDLE), b'"device":"pump"', IMAGE, FEATURES)
    with recording(tls_worker.endpoint, LOOPBACK) as (endpoint, wire), connected(endpoint) as peer:
        assert serves(peer)
    assert all(part in wire for part in said)
    with recording(tls_worker.endpoint, BEYOND) as (endpoint, wire), secured(endpoint, certificates["pump"]) as peer:
        assert serves(peer)
    assert len(wire) > len(IMAGE) + len(FEATURES)
    assert not any(part in wire for part in (*said, TOKEN))


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


def test_without_certificate_and_key_it_is_on_loopback_alone(
    tls_program: Path, tls_folder: Path, certificates: dict[str, Path], tmp_path: Path
) -> None:
    """Beyond loopback they must be there and belong together, or a sentence says so; on loopback none is read."""
    said = "certificate.pem: certificate and key.pem must be readable and belong together ("
    pem, key = certificates["pump"], certificates["pump"].with_suffix(".key")
    (tmp_path / "token").write_bytes((tls_folder / "token").read_bytes())
    for files in (
        {},
        {"certificate.pem": pem},
        {"certificate.pem": key, "key.pem": key},
        {"certificate.pem": pem, "key.pem": certificates["other"].with_suffix(".key")},
    ):
        for name, source in files.items():
            (tmp_path / name).write_bytes(source.read_bytes())
        command = [str(tls_program), str(tmp_path), "--listen", f"{BEYOND}:0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith(f"{tmp_path}/{said}")
    with running(tls_program, tmp_path, "--listen", f"{LOOPBACK}:0") as worker, from_loopback(worker.endpoint) as peer:
        assert peer.read()[0] == HELLO


def test_the_folder_says_what_tls_takes(tls_folder: Path) -> None:
    """Libraries in the Makefile, which can do without, and the package's name where a user looks."""
    for variables, has_tls in (([], True), (["TLS="], False)):
        command = ["make", "-C", str(tls_folder), "-n", "-B", "worker", *variables]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for part in ("-DVIT_TLS", "tls.c", "-lmbedtls -lmbedx509 -lmbedcrypto"):
            assert (part in shown) == has_tls
    for name in ("README.md", "run.sh", "Makefile"):
        assert "libmbedtls-dev" in (tls_folder / name).read_text()
    assert "Bytes are not encrypted" not in (tls_folder / "README.md").read_text()
