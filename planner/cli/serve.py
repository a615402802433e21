"""Command that serves a deployment: answers images on the fleet, from files or over HTTP."""

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli import terminal
from planner.cli.app import command
from planner.errors import InputError, PlannerError, setting
from planner.units import count_noun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.runtime.aggregator import Aggregator
    from planner.runtime.deployment import Deployment
    from planner.runtime.http_server import AnswerServer
    from planner.runtime.service import AnswerService, Snapshot
    from planner.schema import AggregatorManifest

_CONNECT_SECONDS = 10.0
_SECONDS_BETWEEN_LINES = 60.0
_MIN_TOKEN_LENGTH = 16


@command
def serve(
    deployment: Annotated[Path, typer.Argument(help="The folder that planner export wrote.", metavar="DEPLOYMENT")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files of images, or of sounds, or folders of them, a line of JSON each; without any, an HTTP server."
        ),
    ] = None,
    devices: Annotated[
        Path | None, typer.Option("--devices", "-d", help="The fleet, whose devices have the key address.")
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="NAME=HOST:PORT: a worker's address; it wins over the fleet's. Repeatable.")
    ] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            help="How long an image waits for devices [ms].  [default: twice the planned latency, at least 100 ms]",
            min=0.1,
            max=3_600_000,
        ),
    ] = None,
    in_flight: Annotated[
        int, typer.Option(help="Images under way at once: more throughput, but each waits longer.", min=1, max=64)
    ] = 1,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT of the HTTP server; port 0 is any free one.")
    ] = "127.0.0.1:7448",
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the secret that HTTP requests must have; needed beyond loopback.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="The HTTP server's certificate, a PEM file; needed beyond loopback.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, a PEM file.")] = None,
) -> None:
    """Answer images on the fleet, whose workers run already.

    A device that is too late or lost is left out of an answer until it is back. Over HTTP: POST /answer with a file of
    an image, or of a sound where the model's images are spectrograms, or raw bytes as application/octet-stream; GET
    /health; GET /metrics for Prometheus.

    Example: planner serve deploy/ --devices devices.json photos/
             planner serve deploy/ --address pi-1=192.168.0.11:7447
    """
    from planner.runtime.aggregator import Aggregator, default_deadline_us
    from planner.runtime.deployment import read_deployment

    read = read_deployment(deployment)
    addresses = _addresses(read, devices, address or [])
    # Images under way wait for those before them.
    deadline_us = default_deadline_us(read.manifest) * in_flight if deadline_ms is None else round(deadline_ms * 1000)
    with Aggregator(read, addresses, deadline_us, log=_log) as aggregator:
        if images:
            _answer_files(aggregator, read.manifest, images, in_flight)
            return
        from planner.runtime.service import AnswerService

        service = AnswerService(aggregator, in_flight)
        with _server(service, read.manifest.classes, listen, token_file, (tls_cert, tls_key)) as server:
            scheme = "http" if tls_cert is None else "https"
            typer.echo(f"listening on {scheme}://{server.endpoint}")
            with _shown(service, read.manifest.latency_us) as on_snapshot:
                service.run(on_snapshot)


def _log(line: str) -> None:
    typer.echo(line, err=True)


def _addresses(deployment: "Deployment", devices: Path | None, given: Sequence[str]) -> dict[str, str]:
    """Return the address of each device: from the command line, else the fleet, else the aggregator's own default."""
    from planner.library import load_fleet
    from planner.runtime.device.addresses import DEFAULT_PORT

    names = {device.name for device in deployment.manifest.devices}
    addresses = {}
    if deployment.manifest.aggregator in names:
        addresses[deployment.manifest.aggregator] = f"127.0.0.1:{DEFAULT_PORT}"
    members = () if devices is None else load_fleet(devices).members
    addresses |= {d.name: d.address for d in members if d.address is not None and d.name in names}
    for text in given:
        name, equals, address = text.rpartition("=")
        if not equals or not name or not address:
            raise InputError(f"{setting('address')} must be NAME=HOST:PORT, got {text!r}.")
        addresses[name] = address
    return addresses


def _answer_files(
    aggregator: "Aggregator", manifest: "AggregatorManifest", paths: Sequence[Path], in_flight: int
) -> None:
    """Print a line of JSON for each image; one that cannot be read has its reason there, and the rest are answered."""
    from planner.report.fleet_text import fleet_line
    from planner.runtime.answer_json import answer_fields
    from planner.runtime.images import image_files, read_image

    files, sent, unread = image_files(paths, aggregator.input), deque[Path](), 0
    _connect(aggregator)

    def readable() -> "Iterator[NDArray[Any]]":
        nonlocal unread
        for file in files:
            try:
                image = read_image(file, aggregator.input)
            except InputError as error:
                unread += 1
                _print_json({"file": str(file), "error": str(error)})
                continue
            sent.append(file)
            yield image

    def line() -> str:
        return fleet_line(aggregator.states(), aggregator.fleet_state(), manifest.latency_us)

    lines = _LineAMinute()
    for answer in aggregator.answers(readable(), in_flight):
        _print_json({"file": str(sent.popleft()), **answer_fields(answer, manifest.classes)})
        lines.show(line)
    _log(line())
    if unread:
        raise InputError(f"{unread} of {count_noun(len(files), 'image')} could not be read, as the lines above say.")


def _print_json(data: dict[str, Any]) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False))


def _connect(aggregator: "Aggregator") -> None:
    with terminal.status("connecting"):
        down = aggregator.connect(_CONNECT_SECONDS)
    states = aggregator.states()
    if len(down) == len(states):
        first = states[0]
        raise PlannerError(
            f"No worker could be connected to within {_CONNECT_SECONDS:g} s; {first.name} at {first.address}: "
            f"{first.reason}. Start the workers: sh run.sh on each device."
        )


@contextmanager
def _server(
    service: "AnswerService",
    classes: tuple[str, ...],
    listen: str,
    token_file: Path | None,
    tls: tuple[Path | None, Path | None],
) -> "Iterator[AnswerServer]":
    """Run the HTTP server in a thread of its own."""
    from planner.runtime.device.addresses import resolve
    from planner.runtime.device.errors import DeviceError
    from planner.runtime.device.worker import server_context
    from planner.runtime.http_server import AnswerServer

    certificate, key = tls
    if (certificate is None) != (key is None):
        raise InputError(f"{setting('tls_cert')} and {setting('tls_key')} must be given together, got one of them.")
    token = None if token_file is None else _token(token_file)
    try:
        context = None if certificate is None or key is None else server_context(certificate, key)
        endpoint = resolve(listen)
    except DeviceError as error:
        raise InputError(str(error)) from None
    server = AnswerServer(service, classes, endpoint, context, token)
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _token(path: Path) -> str:
    from planner.files import read_text

    token = read_text(path).strip()
    if len(token) < _MIN_TOKEN_LENGTH or not (token.isascii() and token.isprintable()):
        raise InputError(f"{path}: must hold a secret of at least {_MIN_TOKEN_LENGTH} ASCII characters on one line.")
    return token


class _LineAMinute:
    """Lines on stderr, at most one a minute."""

    def __init__(self) -> None:
        self._shown_at = monotonic()

    def show(self, line: Callable[[], str]) -> None:
        """Print a line if a minute has passed since the last one."""
        if monotonic() - self._shown_at >= _SECONDS_BETWEEN_LINES:
            self._shown_at = monotonic()
            _log(line())


@contextmanager
def _shown(service: "AnswerService", planned_us: int) -> "Iterator[Callable[[Snapshot], None]]":
    """Show a live table on a terminal, else a line a minute on stderr; what is yielded takes the snapshots."""
    from planner.report.fleet_text import fleet_line, fleet_table

    if not sys.stdout.isatty():
        lines = _LineAMinute()
        yield lambda snapshot: lines.show(lambda: fleet_line(*snapshot, planned_us))
        return
    from rich.live import Live

    # Drawn in a thread of its own: an answer does not wait for the table.
    with Live(
        console=terminal.console(),
        refresh_per_second=2,
        get_renderable=lambda: fleet_table(*service.snapshot, planned_us),
    ):
        yield lambda snapshot: None
