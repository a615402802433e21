"""TLS between aggregator and workers: the pinned certificate and no other, and nothing in plain outside loopback."""

import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.runtime.aggregator import Aggregator
from planner.runtime.deployment import Deployment
from planner.runtime.device.addresses import Endpoint
from planner.runtime.device.errors import DeviceError
from planner.runtime.device.worker import server_context
from tests.helpers.raw_peer import PATIENCE_S, RawPeer, connected, fake_worker, hello
from tests.helpers.stub_fleet import stub_deployment, stub_image, stub_worker
from tests.helpers.tls_workers import write_certificates

pytest.importorskip("cryptography")

Files = dict[str, Any]


@pytest.fixture
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let loopback count as the network, as a test has no other."""
    monkeypatch.setattr(Endpoint, "is_loopback", property(lambda self: False))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Certificates and keys of two devices."""
    made = write_certificates(tmp_path_factory.mktemp("certificates"), "pump", "other")
    return {name: {"certificate": path, "key": path.with_suffix(".key")} for name, path in made.items()}


def deployment_of(files: Files) -> Deployment:
    """Return a deployment of one device, whose certificate is pinned."""
    return stub_deployment(["pump"], [3], certificates={"pump": files["certificate"]})


def reason_of(aggregator: Aggregator, part: str) -> str:
    """Return why the device is down, once a part of it is said."""
    until = time.monotonic() + PATIENCE_S
    while part not in aggregator.states()[0].reason and time.monotonic() < until:
        aggregator.step(time.monotonic_ns() + 10_000_000)
    return aggregator.states()[0].reason


@pytest.mark.usefixtures("_everywhere")
def test_the_pinned_certificate_is_accepted(files: dict[str, Files]) -> None:
    """Answers come through TLS, whatever the name of the host in the certificate."""
    log: list[str] = []
    with (
        stub_worker("pump", 3, log=log.append, **files["pump"]) as endpoint,
        Aggregator(deployment_of(files["pump"]), {"pump": str(endpoint)}, 60_000_000) as aggregator,
    ):
        assert aggregator.connect(PATIENCE_S) == ()
        answers = list(aggregator.answers([stub_image(i) for i in range(30)], in_flight=5))
        assert all(answer.missing == () for answer in answers)


@pytest.mark.usefixtures("_everywhere")
def test_another_certificate_is_refused(files: dict[str, Files]) -> None:
    """A worker with another key than the exported one is never sent the proof or an image."""
    log: list[str] = []
    with (
        stub_worker("pump", 3, log=log.append, **files["other"]) as endpoint,
        Aggregator(deployment_of(files["pump"]), {"pump": str(endpoint)}, 50_000) as aggregator,
    ):
        assert "not the one that was exported" in reason_of(aggregator, "certificate")
        assert aggregator.answer(stub_image()).label is None
    assert not any("served" in line for line in log)


def speaks_plainly(peer: RawPeer) -> None:
    """Say hello without TLS."""
    peer.sock.sendall(hello("pump", 3))
    peer.read()


@pytest.mark.usefixtures("_everywhere")
def test_a_plain_worker_is_not_spoken_to(files: dict[str, Files]) -> None:
    """Where TLS is due, a worker that speaks in plain is lost, even with the right hello."""
    with (
        fake_worker(speaks_plainly) as address,
        Aggregator(deployment_of(files["pump"]), {"pump": address}, 50_000) as aggregator,
    ):
        assert reason_of(aggregator, "SSL")


@pytest.mark.usefixtures("_everywhere")
def test_a_plain_peer_is_closed(files: dict[str, Files]) -> None:
    """A worker with TLS says nothing in plain, and serves the next one."""
    log: list[str] = []
    with stub_worker("pump", 3, log=log.append, **files["pump"]) as endpoint:
        with connected(endpoint) as peer:
            peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert peer.is_closed()
        with Aggregator(deployment_of(files["pump"]), {"pump": str(endpoint)}, 60_000_000) as aggregator:
            assert aggregator.connect(PATIENCE_S) == ()
    assert any("SSL" in line or "HTTP" in line for line in log)


def test_the_same_machine_speaks_plainly(files: dict[str, Files]) -> None:
    """A worker that listens on all addresses answers an aggregator on its own board over loopback."""
    with (
        stub_worker("pump", 3, listen="0.0.0.0:0", **files["pump"]) as endpoint,
        Aggregator(deployment_of(files["pump"]), {"pump": f"127.0.0.1:{endpoint.port}"}, 60_000_000) as aggregator,
    ):
        assert aggregator.connect(PATIENCE_S) == ()
        assert aggregator.answer(stub_image()).missing == ()


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("192.0.2.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback_is_known(host: str, is_loopback: bool) -> None:
    """All other addresses need TLS, those that stand for every address of the machine among them."""
    assert Endpoint(socket.AF_INET6, host, 1).is_loopback is is_loopback


def test_old_tls_is_refused(files: dict[str, Files]) -> None:
    """TLS 1.2 is the oldest that a worker speaks."""
    assert server_context(**files["pump"]).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_key_of_another_certificate_is_refused(files: dict[str, Files]) -> None:
    """Certificate and key must belong together and be there."""
    with pytest.raises(DeviceError, match=r"pump\.pem: certificate and other\.key must be readable \(.+\)\."):
        server_context(files["pump"]["certificate"], files["other"]["key"])
    with pytest.raises(DeviceError, match=r"absent\.pem: certificate and .* \(No such file or directory\)"):
        server_context(Path("absent.pem"), files["pump"]["key"])


@pytest.mark.usefixtures("_everywhere")
def test_without_a_certificate_nobody_is_connected_to(tmp_path: Path) -> None:
    """Outside loopback, a deployment without a certificate is bad input, never plain bytes."""
    (tmp_path / "broken.pem").write_text("no certificate")
    for name in ("absent.pem", "broken.pem"):
        deployment = deployment_of({"certificate": tmp_path / name})
        with pytest.raises(InputError, match=rf"{name}: must be a certificate \("):
            Aggregator(deployment, {"pump": "127.0.0.1:1"})
