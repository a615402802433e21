"""A device whose cable is pulled out: nobody says goodbye, packets are lost in silence."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.runtime.aggregator import Aggregator, Answer
from planner.runtime.connection import Connection
from tests.helpers.namespaces import Cable, why_no_namespaces
from tests.helpers.stub_aggregators import NUM_FEATURES, PLACES, is_back, is_right
from tests.helpers.stub_fleet import stub_deployment, stub_image, stub_worker
from tests.helpers.stub_process import SLOW, StubProcess, stub_process
from tests.helpers.tls_workers import write_certificates

pytest.importorskip("cryptography")
pytestmark = pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "possible")

DEADLINE_US = 1_500_000


@pytest.fixture
def cable() -> Cable:
    """The cable between the aggregator and the pump."""
    return Cable()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The pump's certificate, its key beside it: outside loopback, a worker speaks TLS alone."""
    return write_certificates(tmp_path, "pump")["pump"]


@pytest.fixture
def pump(cable: Cable, certificate: Path) -> Iterator[StubProcess]:
    """A worker at the far end of the cable."""
    with stub_process("pump", NUM_FEATURES["pump"], f"{cable.host}:0", certificate, cable.connect) as process:
        yield process


@pytest.fixture
def aggregator(pump: StubProcess, certificate: Path) -> Iterator[Aggregator]:
    """An aggregator with two workers on this machine and the pump."""
    deployment = stub_deployment(certificates={"pump": certificate})
    with (
        stub_worker("hub", NUM_FEATURES["hub"]) as hub,
        stub_worker("vent", NUM_FEATURES["vent"]) as vent,
        Aggregator(deployment, {"hub": str(hub), "vent": str(vent), "pump": pump.address}, DEADLINE_US) as running,
    ):
        yield running


def test_a_pulled_cable_costs_one_deadline_and_the_device_is_back_at_once(
    aggregator: Aggregator, pump: StubProcess, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pulled out in the middle of an image, the others answer it at the deadline; put in, the device takes part again.

    It is back with the second attempt to connect at the latest. Attempts are half a second apart, and one that began
    while the cable was out lasts a second at most: less than 2 s together. On a busy machine others may be late, too.
    """
    assert is_back(aggregator, "pump")
    slow = stub_image()
    slow[0, 0, 0] = SLOW
    answers: list[Answer] = []
    aggregator.submit(slow, answers.append)
    pump.wait_until_it_computes()
    cable.pull_out()
    while not answers:
        aggregator.step(2**62)
    assert "pump" in answers[0].missing
    assert is_right(answers[0], slow, *answers[0].missing)
    assert answers[0].latency_us >= DEADLINE_US
    pump.go_on()
    while aggregator.states()[PLACES["pump"]].is_up:
        answer = aggregator.answer(stub_image())
        assert "pump" in answer.missing
        assert is_right(answer, stub_image(), *answer.missing)
        aggregator.step(time.monotonic_ns() + 10_000_000)
    attempts = []
    connect = Connection._connect

    def counted(connection: Connection) -> None:
        if connection.target.name == "pump":
            attempts.append(connection)
        connect(connection)

    monkeypatch.setattr(Connection, "_connect", counted)
    cable.put_in()
    assert is_back(aggregator, "pump")
    assert len(attempts) <= 2
