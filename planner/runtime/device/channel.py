"""Channel: a connection whose bytes go in and out without waiting, plain or through TLS. Both sides use it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Mapping

from .frames import FrameReader

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Channel:
    """Connection that a selecting loop reads; a second thread may write.

    Args:
        sock: Connected socket.
        context: TLS to speak; plain bytes unless given.
        is_server: Side of the TLS handshake.
        limits: Largest payload of each type of frame that may come first, see `FrameReader`.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext | None, is_server: bool, limits: Mapping[int, int]
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_secured = context is None
        if context is not None:
            sock = context.wrap_socket(sock, server_side=is_server, do_handshake_on_connect=False)
        self.sock, self.reader = sock, FrameReader(limits)
        self.is_open = True
        # OpenSSL allows one thread at a time.
        self._lock = threading.Lock()

    def secure(self) -> bool:
        """Go on with the TLS handshake, and return whether it is done.

        Raises:
            OSError: If it failed.
        """
        if isinstance(self.sock, ssl.SSLSocket) and not self.is_secured:
            try:
                self.sock.do_handshake()
            except _WOULD_BLOCK:
                return False
            self.is_secured = True
        return True

    def receive(self) -> None:
        """Receive what is there into the reader.

        Raises:
            OSError: If the connection is lost.
        """
        try:
            with self._lock:
                count = self.sock.recv_into(self.reader.room())
        except _WOULD_BLOCK:
            return
        if not count:
            raise ConnectionResetError("closed by the other side")
        self.reader.received(count)

    @property
    def has_pending(self) -> bool:
        """Return whether bytes are there that selecting does not tell of."""
        if not isinstance(self.sock, ssl.SSLSocket):
            return False
        with self._lock:
            return self.is_open and self.sock.pending() > 0

    def write(self, content: memoryview) -> int:
        """Send as much as is taken now, and return how many bytes that is; a closed channel takes all.

        Raises:
            OSError: If the connection is lost.
        """
        with self._lock:
            if not self.is_open:
                return len(content)
            try:
                return self.sock.send(content)
            except _WOULD_BLOCK:
                return 0

    def wait_until_writable(self, seconds: float) -> None:
        """Wait until more may be taken, or the time is up."""
        with contextlib.suppress(ValueError):
            select.select([], [self.sock], [], seconds)

    def abort(self) -> None:
        """Let the loop that reads find the connection lost."""
        with self._lock, contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self.is_open = False
            self.sock.close()
