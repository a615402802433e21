"""A peer of the runtime made of bytes: it says what a test wants, right or wrong, to a worker or to an aggregator."""

import hashlib
import hmac
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from planner.runtime.device.addresses import Endpoint
from tests.helpers.common import PATIENCE_S as PATIENCE_S
from tests.helpers.stub_fleet import BUNDLE, TOKEN, about

HELLO, PROOF, REQUEST, REPLY, PING, PONG = range(1, 7)


def frame(frame_type: int, payload: bytes) -> bytes:
    """Return a frame as section "Frames" of the documentation has it."""
    return struct.pack("<IB", len(payload), frame_type) + payload


def request(request_id: int, image: bytes, deadline_us: int = 10_000_000) -> bytes:
    """Return a request."""
    return frame(REQUEST, struct.pack("<QI", request_id, deadline_us) + image)


def hello(name: str, num_features: int, bundle: str = BUNDLE, protocol: int = 1, **changes: Any) -> bytes:
    """Return a worker's hello."""
    told = json.dumps(about(name, num_features) | changes).encode()
    return frame(HELLO, struct.pack("<4sH16s32s", b"VITP", protocol, bytes(16), bytes.fromhex(bundle)) + told)


def proof(nonce: bytes, token: bytes = TOKEN, bundle: str = BUNDLE) -> bytes:
    """Return an aggregator's hello back."""
    return frame(PROOF, hmac.new(token, nonce, hashlib.sha256).digest() + bytes.fromhex(bundle))


class RawPeer:
    """Connection whose frames are read one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_S)

    def read(self) -> tuple[int, bytes]:
        """Return type and payload of the next frame.

        Raises:
            ConnectionError: If the other side closes the connection.
        """
        length, frame_type = struct.unpack("<IB", self._read(5))
        return frame_type, self._read(length)

    def _read(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            part = self.sock.recv(count - len(content))
            if not part:
                raise ConnectionResetError("closed")
            content += part
        return content

    def is_closed(self) -> bool:
        """Return whether the other side closes the connection, after what it may still say."""
        try:
            while self.sock.recv(4096):
                pass
        except ConnectionError:
            pass
        return True

    def prove(self, **other: Any) -> None:
        """Read the worker's hello and prove to have the token."""
        frame_type, payload = self.read()
        assert frame_type == HELLO
        self.sock.sendall(proof(payload[6:22], **other))


@contextmanager
def connected(endpoint: Endpoint) -> Iterator[RawPeer]:
    """Connect to a worker."""
    with socket.create_connection((endpoint.host, endpoint.port), timeout=PATIENCE_S) as sock:
        yield RawPeer(sock)


@contextmanager
def fake_worker(behave: Callable[[RawPeer], object]) -> Iterator[str]:
    """Listen, behave towards each connection in turn, close it; yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    try:
                        behave(RawPeer(sock))
                    except OSError:
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        host, port = listener.getsockname()
        yield f"{host}:{port}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE_S)
