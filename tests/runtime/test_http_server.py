"""HTTP in front of the aggregator: answers, health, metrics, and a status with a reason for all else."""

import http.client
import io
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.errors import InputError, PlannerError
from planner.runtime import http_server
from planner.runtime.aggregator import Aggregator
from planner.runtime.device.addresses import Endpoint, resolve
from planner.runtime.device.worker import server_context
from planner.runtime.http_server import AnswerServer
from planner.runtime.measurements import DeviceState, FleetState
from planner.runtime.metrics import prometheus_text
from planner.runtime.service import AnswerService, Snapshot
from planner.schema.deployment import PlannedCosts
from planner.schema.rehearsal import Percentiles
from tests.helpers.raw_peer import PATIENCE_S, fake_worker
from tests.helpers.stub_fleet import CLASSES, SHAPE, stub_deployment, stub_image, stub_worker

RAW = {"Content-Type": "application/octet-stream"}
DEPLOYMENT = stub_deployment()
FAR = 600_000_000
# A line of the text format: name, labels in quotes, number.
METRIC = re.compile(r'planner_[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+')


@contextmanager
def served(down: tuple[str, ...] = (), deadline_us: int = FAR, **options: Any) -> Iterator[AnswerServer]:
    """Yield a server in front of stub workers, some of which are down."""
    with ExitStack() as stack:
        none = stack.enter_context(fake_worker(lambda peer: None))
        addresses = dict.fromkeys(down, none)
        for device in DEPLOYMENT.manifest.devices:
            if device.name not in down:
                addresses[device.name] = str(stack.enter_context(stub_worker(device.name, device.features)))
        aggregator = stack.enter_context(Aggregator(DEPLOYMENT, addresses, deadline_us))
        while sum(state.is_up for state in aggregator.states()) < len(addresses) - len(down):
            aggregator.step(time.monotonic_ns() + 10_000_000)
        service = AnswerService(aggregator)
        server = AnswerServer(service, CLASSES, resolve("127.0.0.1:0"), **options)
        threads = [
            threading.Thread(target=service.run, args=(lambda snapshot: None,)),
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}),
        ]
        for thread in threads:
            thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()
            service.stop()
            for thread in threads:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[AnswerServer]:
    """A server in front of three stub workers."""
    with served() as running:
        yield running


def ask(
    server: AnswerServer, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Return status and body of a request."""
    connection = http.client.HTTPConnection(server.endpoint.host, server.endpoint.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def png(image: "np.ndarray[Any, Any]") -> bytes:
    """Return a grey image (H, W) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def test_raw_bytes_and_image_files_get_the_same_answer(server: AnswerServer) -> None:
    """The class has its name, and nobody is missing."""
    pytest.importorskip("PIL")
    image = stub_image()
    raw = json.loads(ask(server, "POST", "/answer", image.tobytes(), RAW)[1])
    file = json.loads(ask(server, "POST", "/answer", png(image[0]))[1])
    assert raw["class"] == file["class"]
    assert raw["class"] in CLASSES
    assert raw["confidence"] == file["confidence"]
    assert 1 / 3 < raw["confidence"] <= 1
    assert raw["latency_us"] > 0
    assert raw["missing"] == []


def test_a_connection_is_kept(server: AnswerServer) -> None:
    """Many images go through one connection, with answers between them that are refusals."""
    connection = http.client.HTTPConnection(server.endpoint.host, server.endpoint.port, timeout=PATIENCE_S)
    for body, status in [(stub_image().tobytes(), 200), (b"short", 400), (stub_image(1).tobytes(), 200)]:
        connection.request("POST", "/answer", body, RAW)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert not response.will_close
    connection.close()


def test_many_ask_at_once(server: AnswerServer) -> None:
    """Each gets the answer to its own image."""

    def answer(seed: int) -> Any:
        return json.loads(ask(server, "POST", "/answer", stub_image(seed).tobytes(), RAW)[1])["confidence"]

    one_by_one = [answer(seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(answer, range(24))) == one_by_one


def test_health_names_the_devices(server: AnswerServer) -> None:
    """Who is up and who is down."""
    status, body = ask(server, "GET", "/health")
    assert (status, json.loads(body)) == (200, {"up": ["hub", "pump", "vent"], "down": {}})


def test_health_says_what_is_wrong() -> None:
    """A device that is down has its reason, and answers name it; without any there is no answer."""
    with served(down=("pump",)) as server:
        status, body = ask(server, "GET", "/health")
        assert status == 200
        assert list(json.loads(body)["down"]) == ["pump"]
        answer = json.loads(ask(server, "POST", "/answer", stub_image().tobytes(), RAW)[1])
        assert answer["missing"] == ["pump"]
    with served(down=("hub", "pump", "vent"), deadline_us=20_000) as server:
        assert ask(server, "GET", "/health")[0] == 503
        status, body = ask(server, "POST", "/answer", stub_image().tobytes(), RAW)
        assert status == 503
        assert json.loads(body)["class"] is None
        assert json.loads(body)["confidence"] is None


def test_metrics_are_prometheus_text(server: AnswerServer) -> None:
    """Every line is a comment or a metric, each name has its type once, and images are counted."""
    before = time.monotonic()
    ask(server, "POST", "/answer", stub_image().tobytes(), RAW)
    status, body = ask(server, "GET", "/metrics")
    while "planner_answers_total 0" in body and time.monotonic() < before + PATIENCE_S:
        status, body = ask(server, "GET", "/metrics")
    assert status == 200
    lines = body.splitlines()
    assert [line for line in lines if not line.startswith("#") and not METRIC.fullmatch(line)] == []
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert {line.partition(" ")[0].partition("{")[0] for line in lines if line[0] != "#"} <= set(types)
    assert 'planner_device_up{device="pump"} 1' in lines
    assert 'planner_device_planned_compute_seconds{device="pump"} 0.0002' in lines


def test_metrics_escape_names() -> None:
    """Quotes, backslashes and line breaks in the name of a device keep to the format; what is not known is left out."""
    planned = PlannedCosts(send_us=1, compute_us=2, return_us=3, memory_bytes=4)
    device = DeviceState(
        'a"b\\c\nd', "h:1", False, 1.0, "gone", planned, 5, 6, None, Percentiles(p10=1000, p50=1000, p99=2000), None
    )
    text = prometheus_text(Snapshot((device,), FleetState(7, None, 0.0, ())))
    assert r'planner_device_up{device="a\"b\\c\nd"} 0' in text.splitlines()
    assert r'planner_device_compute_seconds{device="a\"b\\c\nd",quantile="0.99"} 0.002' in text.splitlines()
    assert "planner_device_peak_memory_bytes{" not in text
    assert "planner_latency_seconds{" not in text


REFUSED: dict[str, tuple[str, str, bytes | None, dict[str, str], int, str]] = {
    "unknown path": ("GET", "/answers", None, {}, 404, "there is /health, /metrics, got '/answers'"),
    "unknown path with a body": ("POST", "/", b"x" * 1000, RAW, 404, "there is /answer, got '/'"),
    "other method": ("PUT", "/answer", b"x", RAW, 501, "Unsupported method"),
    "too few bytes": ("POST", "/answer", b"x" * 15, RAW, 400, "must have 16 bytes, 1 x 4 x 4 of uint8, got 15"),
    "no image": ("POST", "/answer", b"x" * 15, {}, 400, "the image: must be an image that Pillow can read"),
    "no length": ("POST", "/answer", None, {"Content-Length": "many"}, 411, "Content-Length must be given"),
    "too long": ("POST", "/answer", None, {"Content-Length": "67108865"}, 413, "at most 67108864 bytes"),
    "another host": ("GET", "/health", None, {"Host": "evil.example"}, 403, "must be that of loopback"),
    "another host with loopback in it": ("GET", "/metrics", None, {"Host": "127.0.0.1.evil.example:80"}, 403, "Host"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_said(server: AnswerServer, name: str) -> None:
    """Each refusal has its status and a reason."""
    method, path, body, headers, status, reason = REFUSED[name]
    got, text = ask(server, method, path, body, headers)
    assert (got, reason in text) == (status, True), text


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:7448", "127.1.2.3:80"])
def test_loopback_has_several_names(server: AnswerServer, host: str) -> None:
    """Whatever the port."""
    assert ask(server, "GET", "/health", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "content", [b"\x00" * 500, b"GET\r\n\r\n", b"POST /answer HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
def test_garbage_does_not_end_the_server(server: AnswerServer, content: bytes) -> None:
    """A peer that sends nonsense or goes in the middle is forgotten."""
    with socket.create_connection((server.endpoint.host, server.endpoint.port)) as sock:
        sock.sendall(content)
    assert ask(server, "GET", "/health")[0] == 200


def test_a_slow_request_is_closed(server: AnswerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow loris, whose request never ends, is closed when its time is over."""
    monkeypatch.setattr(http_server, "_REQUEST_SECONDS", 0.3)
    with socket.create_connection((server.endpoint.host, server.endpoint.port), timeout=PATIENCE_S) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nX-A: ")
        # An end, or a reset, but not the time limit of this test.
        with suppress(ConnectionError):
            assert sock.recv(1000) == b""
    assert ask(server, "GET", "/health")[0] == 200


def test_connections_are_bounded(server: AnswerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than so many are closed at once, and make room when they go."""
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 3)
    with ExitStack() as stack:
        address = (server.endpoint.host, server.endpoint.port)
        idle = [stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)) for _ in range(4)]
        assert idle[3].recv(10) == b""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            status = ask(server, "GET", "/health")[0]
            break
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)
    assert status == 200


def test_a_token_must_be_given() -> None:
    """With a token, each request must have it, and none of the paths is open."""
    with served(token="s3cret-s3cret-s3cret") as server:
        for path in ("/health", "/metrics"):
            assert ask(server, "GET", path)[0] == 401
            assert ask(server, "GET", path, headers={"Authorization": "Bearer wrong"})[0] == 401
            assert ask(server, "GET", path, headers={"Authorization": "Bearer ä"})[0] == 401
            right = {"Authorization": "Bearer s3cret-s3cret-s3cret", "Host": "fleet.example"}
            assert ask(server, "GET", path, headers=right)[0] == 200
        assert ask(server, "POST", "/answer", stub_image().tobytes(), RAW)[0] == 401


def test_tls_is_spoken(tmp_path: Path) -> None:
    """With a certificate all is encrypted, and a plain request is not answered."""
    pytest.importorskip("cryptography")
    from planner.runtime.certificates import make_certificate

    made = make_certificate()
    (tmp_path / "certificate.pem").write_bytes(made.certificate)
    (tmp_path / "key.pem").write_bytes(made.key)
    context = server_context(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with served(context=context) as server:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        trusting.check_hostname = False
        connection = http.client.HTTPSConnection(
            server.endpoint.host, server.endpoint.port, context=trusting, timeout=PATIENCE_S
        )
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(server, "GET", "/health")


@pytest.mark.parametrize("options", [{}, {"token": "s3cret-s3cret-s3cret"}, {"context": True}])
def test_outside_loopback_token_and_tls_are_needed(server: AnswerServer, options: dict[str, Any]) -> None:
    """One of them is not enough."""
    if "context" in options:
        options = {"context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}
    endpoint = Endpoint(socket.AF_INET, "0.0.0.0", 0)
    message = r"0\.0\.0\.0:0: outside loopback, `tls_cert`, `tls_key` and `token_file` must be given"
    with pytest.raises(InputError, match=message):
        AnswerServer(server.service, CLASSES, endpoint, **options)


def test_a_port_in_use_is_bad_input(server: AnswerServer) -> None:
    """The message names the address."""
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{server.endpoint.port}: cannot be listened on \(Address"):
        AnswerServer(server.service, CLASSES, server.endpoint)


def test_who_waits_when_the_service_ends_is_told() -> None:
    """No thread waits for ever."""
    addresses = dict.fromkeys(("hub", "pump", "vent"), "127.0.0.1:1")
    with Aggregator(DEPLOYMENT, addresses, FAR) as aggregator, ThreadPoolExecutor(3) as threads:
        service = AnswerService(aggregator)
        asked = [threads.submit(service.ask, stub_image(seed)) for seed in range(3)]
        runner = threading.Thread(target=service.run, args=(lambda snapshot: None,))
        runner.start()
        until = time.monotonic() + PATIENCE_S
        while not aggregator.num_in_flight and time.monotonic() < until:
            time.sleep(0.01)
        service.stop()
        runner.join(PATIENCE_S)
        for future in asked:
            with pytest.raises(PlannerError, match="The aggregator was stopped"):
                future.result(PATIENCE_S)
        with pytest.raises(PlannerError, match="The aggregator was stopped"):
            service.ask(stub_image())


def test_an_image_of_another_shape_is_refused_by_the_service(server: AnswerServer) -> None:
    """Whoever asked gets the reason, and the service goes on."""
    with pytest.raises(InputError, match="an image must be uint8 of shape"):
        server.service.ask(np.zeros((2, *SHAPE[1:]), np.uint8))
    assert server.service.ask(stub_image()).missing == ()
