"""Certificates: TLS with a pinned one succeeds, in Python's strictest mode, and fails with another."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from planner.runtime.certificates import Certificate, make_certificate

pytest.importorskip("cryptography")


def shake_hands(server: Certificate, pinned: Certificate, folder: Path) -> str:
    """Return the version of TLS that a client which pins a certificate agrees on with a server.

    Raises:
        ssl.SSLError: If the client does not trust the server.
    """
    (folder / "certificate.pem").write_bytes(server.certificate)
    (folder / "key.pem").write_bytes(server.key)
    at_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    at_server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    at_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    at_client.check_hostname = False
    at_client.verify_flags |= ssl.VERIFY_X509_STRICT
    at_client.load_verify_locations(cadata=pinned.certificate.decode())
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            at_server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with at_client.wrap_socket(ours) as connection:
            return connection.version() or ""
    finally:
        ours.close()
        thread.join()


def test_the_pinned_certificate_is_trusted(tmp_path: Path) -> None:
    """A worker with its own certificate is trusted by the aggregator that pins it."""
    certificate = make_certificate()
    assert shake_hands(certificate, certificate, tmp_path) == "TLSv1.3"


def test_another_certificate_is_not_trusted(tmp_path: Path) -> None:
    """One with the same name but another key is not."""
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(make_certificate(), make_certificate(), tmp_path)
