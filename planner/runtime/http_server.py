"""HTTP server in front of the aggregator: `POST /answer`, `GET /health`, `GET /metrics`.

On loopback it is open to every process of the machine, but not to web pages that a browser there shows: the Host must
be loopback's. Elsewhere it wants TLS and a token (`Authorization: Bearer TOKEN`).
"""

import contextlib
import hmac
import ipaddress
import json
import socket
import ssl
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from numpy.typing import NDArray

from planner.errors import InputError, PlannerError, setting
from planner.runtime.answer_json import answer_fields
from planner.runtime.device.addresses import Endpoint
from planner.runtime.images import image_of_file, raw_image
from planner.runtime.metrics import CONTENT_TYPE, prometheus_text
from planner.runtime.service import AnswerService, BusyError

_MAX_BODY_BYTES = 64 * 2**20
_MAX_CONNECTIONS = 64
# For a part of a request; and for all of it, however slowly its parts come.
_PART_SECONDS, _REQUEST_SECONDS = 10.0, 30.0
_RAW = "application/octet-stream"


class AnswerServer(ThreadingHTTPServer):
    """HTTP server that listens from its construction on.

    Args:
        service: Answers.
        classes: Names of the classes, in the order of the answers.
        endpoint: Address to listen on; port 0 is any free one.
        context: TLS, which every address but loopback needs.
        token: Secret that each request must have, which every address but loopback needs.

    Raises:
        InputError: If the address is not loopback and TLS or token is missing, or it cannot be listened on.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        service: AnswerService,
        classes: tuple[str, ...],
        endpoint: Endpoint,
        context: ssl.SSLContext | None = None,
        token: str | None = None,
    ) -> None:
        if not endpoint.is_loopback and (context is None or token is None):
            wanted = f"{setting('tls_cert')}, {setting('tls_key')} and {setting('token_file')}"
            raise InputError(f"{endpoint}: outside loopback, {wanted} must be given.")
        self.service, self.classes, self.token, self._context = service, classes, token, context
        self.address_family = endpoint.family
        self._lock = threading.Lock()
        # Connections that must have sent a whole request by a moment.
        self._expiring: dict[socket.socket, float] = {}
        self._num_connections = 0
        try:
            super().__init__((endpoint.host, endpoint.port), _Handler)
        except OSError as error:
            raise InputError(f"{endpoint}: cannot be listened on ({error.strerror}).") from None
        self.endpoint = Endpoint(endpoint.family, endpoint.host, self.server_port)
        """Address that it listens on."""

    def server_bind(self) -> None:
        # The base class looks its own name up, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        sock.settimeout(_PART_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            # The handshake is done in the connection's own thread, at its first read.
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            is_full = self._num_connections >= _MAX_CONNECTIONS
            self._num_connections += not is_full
        if is_full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.expire_never(request)
            with self._lock:
                self._num_connections -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that break: what there is to say was answered."""

    def expire_soon(self, sock: socket.socket) -> None:
        """Close a connection unless it has sent a whole request in half a minute."""
        with self._lock:
            self._expiring[sock] = time.monotonic() + _REQUEST_SECONDS

    def expire_never(self, sock: socket.socket) -> None:
        """Leave a connection open: its request is whole."""
        with self._lock:
            self._expiring.pop(sock, None)

    def service_actions(self) -> None:
        now = time.monotonic()
        with self._lock:
            expired = [sock for sock, moment in self._expiring.items() if moment <= now]
        for sock in expired:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _RefusalError(Exception):
    """Answer to a request that cannot be met."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "planner", ""
    # Head and body of an answer leave in one packet.
    wbufsize = -1
    server: AnswerServer

    def handle_one_request(self) -> None:
        self.server.expire_soon(self.connection)
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer `/health` and `/metrics`."""
        self._respond({"/health": self._health, "/metrics": self._metrics})

    def do_POST(self) -> None:
        """Answer `/answer`."""
        self._respond({"/answer": self._answer})

    def log_message(self, format: str, *args: Any) -> None:
        """Keep silent: a line for each image would bury all others."""

    def _respond(self, routes: dict[str, Any]) -> None:
        try:
            self._check_client()
            path = self.path.partition("?")[0]
            if path not in routes:
                raise _RefusalError(HTTPStatus.NOT_FOUND, f"there is {', '.join(routes)}, got {path[:100]!r}")
            routes[path]()
        except _RefusalError as refusal:
            self._discard_body()
            self.close_connection = True
            self._send_json(refusal.status, {"error": str(refusal)})
        except BusyError as error:
            self._send_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
        except InputError as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except PlannerError as error:
            self._send_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})

    def _discard_body(self) -> None:
        """Read what a refused request still has to say: a connection closed before it loses the answer."""
        length = self.headers.get("Content-Length", "")
        left = int(length) if length.isascii() and length.isdigit() and len(length) <= 12 else 0
        left = left if left <= _MAX_BODY_BYTES else 0
        while left and (part := self.rfile.read(min(left, 2**16))):
            left -= len(part)

    def _check_client(self) -> None:
        token = self.server.token
        if token is not None:
            given = self.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise _RefusalError(HTTPStatus.UNAUTHORIZED, "the header Authorization must be Bearer TOKEN")
        elif not _is_loopback(self.headers.get("Host", "")):
            raise _RefusalError(HTTPStatus.FORBIDDEN, "the header Host must be that of loopback")

    def _health(self) -> None:
        devices = self.server.service.snapshot.devices
        up, down = [d.name for d in devices if d.is_up], {d.name: d.reason for d in devices if not d.is_up}
        status = HTTPStatus.OK if up else HTTPStatus.SERVICE_UNAVAILABLE
        self._send_json(status, {"up": up, "down": down})

    def _metrics(self) -> None:
        self._send(HTTPStatus.OK, CONTENT_TYPE, prometheus_text(self.server.service.snapshot).encode())

    def _answer(self) -> None:
        answer = self.server.service.ask(self._image())
        status = HTTPStatus.OK if answer.label is not None else HTTPStatus.SERVICE_UNAVAILABLE
        self._send_json(status, answer_fields(answer, self.server.classes))

    def _image(self) -> NDArray[Any]:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _RefusalError(HTTPStatus.LENGTH_REQUIRED, "the header Content-Length must be given")
        if len(length) > 12 or int(length) > _MAX_BODY_BYTES:
            raise _RefusalError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an image must have at most {_MAX_BODY_BYTES} bytes"
            )
        content = self.rfile.read(int(length))
        self.server.expire_never(self.connection)
        if len(content) < int(length):
            raise ConnectionResetError("closed before the image was whole")
        expected = self.server.service.input
        is_raw = self.headers.get_content_type() == _RAW
        return raw_image(content, expected) if is_raw else image_of_file(content, expected)

    def _send_json(self, status: HTTPStatus, data: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(data, ensure_ascii=False).encode() + b"\n")

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _is_loopback(host: str) -> bool:
    """Return whether a Host header names loopback: a page of another name may be led to this address."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
