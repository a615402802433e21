"""C workers that speak TLS, their peers, and a recorder of what goes over the wire.

A test has no network but loopback. So the worker is built to take 127.9.0.0/16 alone for loopback: 127.0.0.1 is beyond
it, and a peer that connects from 127.9.0.1 is not.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from planner.runtime.device.addresses import Endpoint
from tests.helpers.c_workers import RunningWorker, serves_new, write_stub_folder
from tests.helpers.raw_peer import PATIENCE_S, RawPeer, connected

BEYOND, LOOPBACK = "127.0.0.1", "127.9.0.1"


def write_certificates(folder: Path, *names: str) -> dict[str, Path]:
    """Write a certificate for each name, NAME.pem, with its key beside it, NAME.key; return those of certificates."""
    from planner.runtime.certificates import make_certificate

    for name in names:
        made = make_certificate()
        (folder / f"{name}.pem").write_bytes(made.certificate)
        (folder / f"{name}.key").write_bytes(made.key)
    return {name: folder / f"{name}.pem" for name in names}


def write_tls_folder(folder: Path, certificate: Path) -> Path:
    """Write the folder of a C worker that speaks TLS and takes 127.9.0.0/16 for loopback, and return it."""
    write_stub_folder(folder, speaks_tls=True)
    (folder / "certificate.pem").write_bytes(certificate.read_bytes())
    (folder / "key.pem").write_bytes(certificate.with_suffix(".key").read_bytes())
    narrow_loopback(folder)
    return folder


def narrow_loopback(folder: Path) -> None:
    """Let the worker of a C folder, which is not built yet, take 127.9.0.0/16 alone for loopback."""
    source = folder / "address.c"
    usual, narrowed = ">> 24 == 127;", ">> 16 == 0x7f09;"
    assert source.read_text().count(usual) == 1
    source.write_text(source.read_text().replace(usual, narrowed))


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


@contextmanager
def from_loopback(endpoint: Endpoint) -> Iterator[RawPeer]:
    """Connect to a worker from an address that it takes for loopback."""
    address = (endpoint.host, endpoint.port)
    with socket.create_connection(address, PATIENCE_S, source_address=(LOOPBACK, 0)) as sock:
        yield RawPeer(sock)


def asks(worker: RunningWorker, certificate: Path) -> bool:
    """Return whether a new peer with TLS gets the right answer."""
    with secured(worker.endpoint, certificate) as peer:
        return serves_new(peer)


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
