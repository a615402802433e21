"""TLS of a C worker: the certificate that is pinned, and nothing in plain beyond loopback."""

import ssl
import struct
import subprocess
import time
from pathlib import Path

import pytest

from planner.runtime.aggregator import Aggregator
from tests.helpers.c_workers import FEATURES, IMAGE, RunningWorker, running, serves_new
from tests.helpers.raw_peer import HELLO, PATIENCE_S, REPLY, connected, request
from tests.helpers.stub_fleet import BUNDLE, TOKEN, stub_deployment, stub_features, stub_image
from tests.helpers.tls_workers import BEYOND, LOOPBACK, asks, from_loopback, recording, secured


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
        assert serves_new(peer)


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


def test_the_same_machine_speaks_plainly(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """On whichever address the worker listens, a peer over loopback has no TLS, as with a Python worker."""
    with from_loopback(tls_worker.endpoint) as plain:
        assert serves_new(plain)
    assert asks(tls_worker, certificates["pump"])


def test_bytes_that_were_decrypted_already_are_read(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """Many requests come in one record, and no socket tells of those after the first."""
    with secured(tls_worker.endpoint, certificates["pump"]) as peer:
        assert serves_new(peer)
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


def test_nothing_is_in_plain_on_the_wire(tls_worker: RunningWorker, certificates: dict[str, Path]) -> None:
    """Hello, image and features are to be read on the wire without TLS, and not with it; the token never is."""
    said = (b"VITP", bytes.fromhex(BUNDLE), b'"device":"pump"', IMAGE, FEATURES)
    with recording(tls_worker.endpoint, LOOPBACK) as (endpoint, wire), connected(endpoint) as peer:
        assert serves_new(peer)
    assert all(part in wire for part in said)
    with recording(tls_worker.endpoint, BEYOND) as (endpoint, wire), secured(endpoint, certificates["pump"]) as peer:
        assert serves_new(peer)
    assert len(wire) > len(IMAGE) + len(FEATURES)
    assert not any(part in wire for part in (*said, TOKEN))


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
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
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
