"""Error of a worker, with a reason for its log."""

from __future__ import annotations

# Of a message, whatever a file or a peer put into it.
_MAX_MESSAGE = 480


class DeviceError(Exception):
    """A problem that ends a worker, or a connection to it: one printable sentence of bounded length."""

    def __init__(self, message: str) -> None:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message[:100_000])
        if len(shown) > _MAX_MESSAGE:
            shown = f"{shown[: 2 * _MAX_MESSAGE // 3]}...{shown[-_MAX_MESSAGE // 3 + 3 :]}"
        super().__init__(shown)
