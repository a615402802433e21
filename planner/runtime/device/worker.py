"""Worker: a selecting loop that accepts aggregators, has them prove the token, and serves one of them.

The first aggregator keeps its place as long as it answers pings. A second one that proves the token is refused then,
with a reason in the log, and takes the place if the first is silent, as after a cable was pulled.
"""

from __future__ import annotations

import hmac
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .addresses import Endpoint
from .errors import DeviceError
from .frames import (
    FrameError,
    FrameType,
    limits_of_worker,
    pack_hello,
    pack_ping,
    pack_pong,
    proof_of,
    unpack_ping,
    unpack_pong,
    unpack_proof,
    unpack_request,
)
from .inference import MAX_WAITING, ComputeThread, Hold, Job
from .peer import Peer, PeerPhase

# Time for a peer to prove that it has the token, and for the one that is served to show that it lives.
_PROOF_SECONDS, _PONG_SECONDS = 5.0, 0.5
_MAX_UNPROVEN = 8
_STEP_SECONDS = 0.25


class Served(NamedTuple):
    """Sub-model that a worker answers with.

    Attributes:
        bundle: SHA-256 of the bundle's manifest, 32 bytes.
        token: Secret that aggregators must prove to have.
        about: What hello tells about it.
        image_bytes: Size of an image.
        features_of: From an image to its features, both as bytes.
    """

    bundle: bytes
    token: bytes
    about: dict[str, Any]
    image_bytes: int
    features_of: Callable[[memoryview], bytes]


class Worker:
    """Worker that listens from its construction on.

    Args:
        served: Sub-model to answer with.
        endpoint: Address to listen on; port 0 is any free one.
        context: TLS for peers beyond loopback; every other address needs it.
        log: Receiver of a line for each event.
        hold: Planned times to keep in a rehearsal.
        marks: File for the moments of each request, see `ComputeThread`.

    Raises:
        DeviceError: If the address is not loopback and there is no TLS, or it cannot be listened on.
    """

    def __init__(
        self,
        served: Served,
        endpoint: Endpoint,
        context: ssl.SSLContext | None,
        log: Callable[[str], None],
        hold: Hold = Hold(),  # noqa: B008 - immutable
        marks: BinaryIO | None = None,
    ) -> None:
        if context is None and not endpoint.is_loopback:
            raise DeviceError(f"{endpoint}: outside loopback, the worker must have a certificate, got none.")
        self._served_model, self._context, self._log = served, context, log
        self._listener = _listen(endpoint)
        self.endpoint = Endpoint(endpoint.family, endpoint.host, self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._unproven: list[Peer] = []
        self._peer: Peer | None = None
        self._contender: Peer | None = None
        self._is_stopped = False
        self._compute = ComputeThread(served.features_of, hold, marks, log)
        self._compute.start()

    def run(self) -> None:
        """Serve until `stop` is called from another thread, or an exception such as Ctrl-C."""
        try:
            while not self._is_stopped:
                self._step()
        finally:
            self._close()

    def stop(self) -> None:
        """Have `run` return soon."""
        self._is_stopped = True

    def _step(self) -> None:
        for key, _ in self._selector.select(_STEP_SECONDS):
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._guard(key.data, self._on_event)
        self._expire(time.monotonic())

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except OSError:
            return
        if len(self._unproven) >= _MAX_UNPROVEN:
            self._drop(self._unproven[0], "too many peers that have not proved the token")
        # Whoever comes over loopback speaks plainly, on whichever address the worker listens.
        endpoint = Endpoint(self.endpoint.family, address[0], address[1])
        context = None if endpoint.is_loopback else self._context
        peer = Peer(sock, str(endpoint), context, time.monotonic() + _PROOF_SECONDS)
        self._unproven.append(peer)
        self._selector.register(peer.channel.sock, selectors.EVENT_READ, peer)
        if peer.channel.is_secured:
            self._guard(peer, self._greet)

    def _guard(self, peer: Peer, action: Callable[[Peer], None]) -> None:
        """Act on a peer, which is closed if it breaks the rules or is lost."""
        try:
            action(peer)
        except FrameError as error:
            self._drop(peer, str(error))
        except (OSError, ValueError) as error:
            self._drop(peer, str(error))

    def _greet(self, peer: Peer) -> None:
        peer.phase = PeerPhase.GREETED
        peer.send(pack_hello(peer.nonce, self._served_model.bundle, self._served_model.about))

    def _on_event(self, peer: Peer) -> None:
        if not peer.is_open:
            return
        if peer.phase == PeerPhase.SECURING:
            if not peer.channel.secure():
                return
            self._greet(peer)
        else:
            peer.channel.receive()
        self._handle_frames(peer)

    def _handle_frames(self, peer: Peer) -> None:
        while peer.is_open and peer.phase != PeerPhase.WAITING:
            frame = peer.channel.reader.next_frame()
            if frame is not None:
                self._handle(peer, *frame)
            elif peer.channel.has_pending:
                peer.channel.receive()
            else:
                return

    def _handle(self, peer: Peer, frame_type: int, payload: memoryview) -> None:
        if frame_type == FrameType.PROOF:
            self._check_proof(*unpack_proof(payload), peer)
        elif frame_type == FrameType.REQUEST:
            if self._compute.is_full:
                raise FrameError(f"at most {MAX_WAITING} requests may wait")
            request = unpack_request(payload, self._served_model.image_bytes)
            self._compute.put(Job(peer, request, time.monotonic_ns()))
        elif frame_type == FrameType.PING:
            peer.send(pack_pong(unpack_ping(payload), peak_memory_bytes()))
        else:
            unpack_pong(payload)
            if self._contender is not None:
                self._drop(self._contender, f"refused, as {peer.name} is served")

    def _check_proof(self, proof: bytes, bundle: bytes, peer: Peer) -> None:
        served = self._served_model
        if not hmac.compare_digest(proof, proof_of(served.token, peer.nonce)):
            raise FrameError("refused, as its token is not this folder's")
        if not hmac.compare_digest(bundle, served.bundle):
            raise FrameError(f"refused, as it runs bundle {bundle.hex()[:12]}..., not {served.bundle.hex()[:12]}...")
        self._unproven.remove(peer)
        if self._peer is None:
            self._serve(peer)
        elif self._contender is not None:
            self._drop(peer, f"refused, as {self._peer.name} is served")
        else:
            self._contender, peer.phase = peer, PeerPhase.WAITING
            peer.expires_at = time.monotonic() + _PONG_SECONDS
            self._selector.unregister(peer.channel.sock)
            self._guard(self._peer, lambda first: first.send(pack_ping(0)))

    def _serve(self, peer: Peer) -> None:
        self._peer, was_waiting = peer, peer.phase == PeerPhase.WAITING
        peer.phase = PeerPhase.SERVED
        peer.channel.reader.limits = limits_of_worker(self._served_model.image_bytes)
        self._log(f"{peer.name}: served")
        if was_waiting:
            self._selector.register(peer.channel.sock, selectors.EVENT_READ, peer)
            # It may have asked already, in bytes that selecting does not tell of.
            self._guard(peer, self._handle_frames)

    def _drop(self, peer: Peer, reason: str) -> None:
        if not peer.is_open:
            return
        if peer.phase != PeerPhase.WAITING:
            self._selector.unregister(peer.channel.sock)
        peer.channel.close()
        self._log(f"{peer.name}: {reason}")
        if peer in self._unproven:
            self._unproven.remove(peer)
        if peer is self._contender:
            self._contender = None
        if peer is self._peer:
            self._peer, contender = None, self._contender
            if contender is not None:
                self._contender = None
                self._serve(contender)

    def _expire(self, now: float) -> None:
        for peer in [p for p in self._unproven if p.expires_at <= now]:
            self._drop(peer, f"no proof of the token within {_PROOF_SECONDS:g} s")
        if self._contender is not None and self._contender.expires_at <= now and self._peer is not None:
            self._drop(self._peer, f"silent for {_PONG_SECONDS:g} s while another aggregator asks")

    def _close(self) -> None:
        for peer in [*self._unproven, self._contender, self._peer]:
            if peer is not None:
                peer.channel.close()
        self._listener.close()
        self._selector.close()
        self._compute.stop()


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return TLS with a device's certificate.

    Raises:
        DeviceError: If certificate or key cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        reason = error.strerror or error
        raise DeviceError(f"{certificate}: certificate and {key.name} must be readable ({reason}).") from None
    return context


def peak_memory_bytes() -> int:
    """Return the peak memory of this process as Linux counts it (VmHWM) [bytes]; 0 where there is no such count."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _listen(endpoint: Endpoint) -> socket.socket:
    listener = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((endpoint.host, endpoint.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise DeviceError(f"{endpoint}: cannot be listened on ({error.strerror}).") from None
    listener.setblocking(False)
    return listener
