"""Peer of a worker: an aggregator, or whoever claims to be one."""

from __future__ import annotations

import os
import socket
import ssl
import time
from enum import IntEnum

from .channel import Channel
from .frames import NONCE_BYTES, limits_before_proof

# A peer that does not take a reply for so long is lost.
_SEND_SECONDS = 1.0


class PeerPhase(IntEnum):
    """Stages of a connection: TLS handshake, hello said, proved but another is served, served."""

    SECURING = 0
    GREETED = 1
    WAITING = 2
    SERVED = 3


class Peer:
    """Peer of a worker.

    Args:
        sock: Accepted connection.
        name: Address, for the log.
        context: TLS to speak; plain bytes unless given.
        expires_at: Moment at which it is closed unless it has proved to have the token [s of the monotonic clock].
    """

    def __init__(self, sock: socket.socket, name: str, context: ssl.SSLContext | None, expires_at: float) -> None:
        self.channel = Channel(sock, context, is_server=True, limits=limits_before_proof())
        self.name, self.expires_at = name, expires_at
        self.phase = PeerPhase.SECURING
        self.nonce = os.urandom(NONCE_BYTES)

    @property
    def is_open(self) -> bool:
        """Return whether the connection was not closed on this side."""
        return self.channel.is_open

    def send(self, frame: bytes) -> None:
        """Send a frame; a closed connection takes it and forgets it.

        Raises:
            OSError: If the connection is lost, or the peer does not take the frame.
        """
        left = memoryview(frame)[self.channel.write(memoryview(frame)) :]
        until = time.monotonic() + _SEND_SECONDS
        while left:
            if time.monotonic() > until:
                raise TimeoutError("replies are not taken")
            self.channel.wait_until_writable(0.05)
            left = left[self.channel.write(left) :]

    def send_or_abort(self, frame: bytes) -> None:
        """Send a frame, or let the loop that reads find the connection lost."""
        try:
            self.send(frame)
        except OSError:
            self.channel.abort()
