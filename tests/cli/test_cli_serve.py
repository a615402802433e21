"""`planner serve`: lines of JSON for images, HTTP without any, and plain sentences for what cannot be."""

import io
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from planner.report.fleet_text import fleet_line, fleet_table
from planner.runtime.measurements import DeviceState, FleetState
from planner.schema.deployment import PlannedCosts
from planner.schema.rehearsal import Percentiles
from tests.helpers.command_line import planner, planner_here, refused
from tests.helpers.common import PATIENCE_S, Json
from tests.helpers.stub_fleet import CLASSES, SHAPE, stub_worker, write_stub_deployment

Image = pytest.importorskip("PIL.Image")

FEATURES = {"hub": 2, "pump": 3, "vent": 4}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment of three devices on the disk."""
    return write_stub_deployment(tmp_path_factory.mktemp("serve") / "deploy")


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Addresses of three stub workers."""
    with ExitStack() as stack:
        yield {name: str(stack.enter_context(stub_worker(name, count))) for name, count in FEATURES.items()}


def flags(addresses: dict[str, str]) -> list[str]:
    """Return addresses as flags."""
    return [text for name, address in addresses.items() for text in ("--address", f"{name}={address}")]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of five images."""
    (tmp_path / "images").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, SHAPE[1:], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def lines(text: str) -> list[Json]:
    """Return lines of JSON."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("in_flight", ["1", "4"])
def test_a_line_for_each_image(deployment: Path, addresses: dict[str, str], images: Path, in_flight: str) -> None:
    """Lines come in the order of the files, with class, confidence and whoever was missing."""
    done = planner("serve", deployment, images, *flags(addresses), "--in-flight", in_flight, "--deadline-ms", "600000")
    assert done.returncode == 0, done.stderr
    answers = lines(done.stdout)
    assert [Path(answer["file"]).name for answer in answers] == [f"{i}.png" for i in range(5)]
    for answer in answers:
        assert list(answer) == ["file", "class", "confidence", "latency_us", "missing"]
        assert answer["class"] in CLASSES
        assert answer["missing"] == []
    assert "3 of 3 devices up; 5 answers," in done.stderr


def test_a_broken_image_stops_no_other(deployment: Path, addresses: dict[str, str], images: Path) -> None:
    """Its line has the reason, the others are answered, and the exit code is 2."""
    (images / "2.png").write_text("no image")
    done = planner("serve", deployment, images, *flags(addresses), "--deadline-ms", "600000")
    assert done.returncode == 2
    answers = lines(done.stdout)
    assert len(answers) == 5
    assert ["error" in answer for answer in answers] == [False, False, True, False, False]
    assert "must be an image that Pillow can read" in answers[2]["error"]
    assert "1 of 5 images could not be read, as the lines above say." in done.stderr


def test_addresses_come_from_the_fleet(
    deployment: Path, addresses: dict[str, str], images: Path, tmp_path: Path
) -> None:
    """The key `address` of devices.json is used, and a flag wins over it."""
    devices = [
        {"name": name, "macs_per_second": 1e6, "memory_budget": "1MiB", "address": address}
        for name, address in addresses.items()
    ]
    devices[1]["address"] = "127.0.0.1:1"
    devices.append({"name": "idle", "macs_per_second": 1e6, "memory_budget": "1MiB", "address": "127.0.0.1:1"})
    fleet = {"aggregator": "hub", "devices": devices, "default_link": {"bandwidth_mbps": 8, "latency_ms": 1}}
    (tmp_path / "devices.json").write_text(json.dumps(fleet))
    flag = ["--address", f"pump={addresses['pump']}"]
    done = planner(
        "serve", deployment, images / "0.png", "--devices", tmp_path / "devices.json", *flag, "--deadline-ms", "600000"
    )
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout)[0]["missing"] == []


def wait_until_all_are_up(url: str) -> None:
    """Ask for the fleet's health until nobody is down."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=PATIENCE_S) as response:
                if not json.load(response)["down"]:
                    return
        except urllib.error.HTTPError as error:
            error.close()
        time.sleep(0.02)


def test_http_until_ctrl_c(deployment: Path, addresses: dict[str, str], images: Path) -> None:
    """The address is printed first; images are answered; Ctrl-C ends with 130 and no traceback."""
    command = [str(Path(sys.executable).with_name("planner")), "serve", str(deployment), *flags(addresses)]
    command += ["--listen", "127.0.0.1:0", "--deadline-ms", "600000"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip().removeprefix("listening on ")
        assert url.startswith("http://127.0.0.1:")
        wait_until_all_are_up(url)
        body = (images / "0.png").read_bytes()
        with urllib.request.urlopen(f"{url}/answer", body, timeout=PATIENCE_S) as response:
            assert json.load(response)["class"] in CLASSES
        server.send_signal(signal.SIGINT)
        _, log = server.communicate(timeout=PATIENCE_S)
    finally:
        server.kill()
    assert server.returncode == 130
    assert "Traceback" not in log
    assert "pump: up" in log


def test_what_cannot_be_is_one_sentence(deployment: Path, addresses: dict[str, str], tmp_path: Path) -> None:
    """Missing and malformed addresses, and an open server outside loopback."""
    both = ["--address", "pump=127.0.0.1:1", "--address", "vent=127.0.0.1:1"]
    refused(
        planner_here("serve", deployment, *both[:2]), "--address must be given for each device, got none for 'vent'"
    )
    refused(planner_here("serve", deployment, "--address", "pump"), "--address must be NAME=HOST:PORT, got 'pump'")
    refused(planner_here("serve", deployment, *both, "--address", "x=h:1"), "--address: 'x' is not a device of")
    refused(
        planner_here("serve", deployment, *both, "--listen", "0.0.0.0:0"), "outside loopback, --tls-cert, --tls-key"
    )
    refused(planner_here("serve", deployment, *both, "--listen", "here"), "address must be HOST:PORT")
    refused(
        planner_here("serve", deployment, *both, "--tls-cert", "x"), "--tls-cert and --tls-key must be given together"
    )
    (tmp_path / "token").write_text("short\n")
    refused(
        planner_here("serve", deployment, *both, "--token-file", tmp_path / "token"), "at least 16 ASCII characters"
    )
    refused(planner_here("serve", tmp_path), str(tmp_path))


def times(p50: int, p99: int) -> Percentiles:
    """Return percentiles of a time [us]."""
    return Percentiles(p10=p50, p50=p50, p99=p99)


def state(**changes: object) -> DeviceState:
    """Return a device that is up."""
    planned = PlannedCosts(send_us=1000, compute_us=2000, return_us=500, memory_bytes=2**20)
    fields = {"name": "pump", "address": "h:1", "is_up": True, "since_s": 130.0, "reason": "", "planned": planned}
    fields |= {"answered": 5, "missed": 1, "transport": times(1600, 2000), "compute": times(2100, 2500)}
    return DeviceState(**fields | {"peak_memory_bytes": 2**21} | changes)  # type: ignore[arg-type]


FLEET = FleetState(answered=6, latency=times(4200, 5000), images_per_second=12.34, missing=((("vent",), 2),))


def test_the_table_shows_predicted_beside_measured() -> None:
    """Each device has its planned and measured times and memory, and who is down has its reason."""
    down = state(name="vent", is_up=False, since_s=3.0, reason="Connection refused", transport=None, compute=None)
    console = Console(file=io.StringIO(), width=140)
    console.print(fleet_table((state(), down), FLEET, 3600))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in text.splitlines() if "pump" in line)
    parts = [part.strip() for part in row.strip("│").split("│")]
    assert parts == ["pump", "up 2 min", "1.5", "1.6", "2.0", "2.0", "2.1", "2.5", "1.0 MiB", "2.0 MiB", "1"]
    assert "send + return [ms]" in text
    assert "compute [ms]" in text
    assert "down 3 s" in text
    assert "vent: Connection refused" in text
    assert "without vent: 2 answers" in text


def test_the_line_says_the_same_in_short() -> None:
    """Devices, answers, throughput, and latency as planned and measured."""
    assert fleet_line((state(), state(is_up=False)), FLEET, 3600) == (
        "1 of 2 devices up; 6 answers, 12.3 a second, 2 without a device; "
        "latency 3.6 ms planned, p50 4.2 ms, p99 5.0 ms"
    )
