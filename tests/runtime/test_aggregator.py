"""The aggregator and its workers: right answers, and answers in time without whoever fails, whatever the failure."""

import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from planner.errors import InputError
from planner.runtime.aggregator import Aggregator, Answer, default_deadline_us
from planner.runtime.connection import Connection
from planner.runtime.fusion import ArrayFusion
from planner.runtime.known_workers import workers_of
from tests.helpers.raw_peer import PATIENCE_S, fake_worker
from tests.helpers.stub_aggregators import (
    DEPLOYMENT,
    FAR,
    NUM_FEATURES,
    PLACES,
    is_back,
    is_right,
    stub_aggregator,
)
from tests.helpers.stub_fleet import BUNDLE, stub_image, stub_worker
from tests.helpers.stub_process import SLOW, StubProcess, stub_process


def submitted(aggregator: Aggregator, image: NDArray[np.uint8]) -> list[Answer]:
    """Send an image, and return the list that will have the answer."""
    answers: list[Answer] = []
    aggregator.submit(image, answers.append)
    return answers


def finished(aggregator: Aggregator, answers: list[Answer]) -> Answer:
    """Wait for the answer."""
    while not answers:
        aggregator.step(2**62)
    return answers[0]


def slow_image() -> NDArray[np.uint8]:
    """Return an image that keeps a stub process busy for a minute."""
    image = stub_image()
    image[0, 0, 0] = SLOW
    return image


@pytest.fixture(scope="module")
def running() -> Iterator[Aggregator]:
    """An aggregator of three stub workers."""
    with stub_aggregator() as aggregator:
        yield aggregator


@pytest.mark.parametrize("in_flight", [1, 2, 7, 64])
def test_answers_are_those_of_the_fusion(running: Aggregator, in_flight: int) -> None:
    """Each image has its own answer, in the order of the images, however many are under way."""
    images = [stub_image(seed) for seed in range(40)]
    answers = list(running.answers(images, in_flight))
    assert len(answers) == 40
    assert all(is_right(answer, image) for answer, image in zip(answers, images, strict=True))
    assert all(set(answer.replies) == set(NUM_FEATURES) for answer in answers)


def test_times_belong_together(running: Aggregator) -> None:
    """Compute lies within the device's time, that within the round trip, and that within the latency."""
    answer = running.answer(stub_image())
    for reply in answer.replies.values():
        # Microseconds are cut off on both sides.
        assert reply.compute_us <= reply.total_us <= reply.round_trip_us + 1 <= answer.latency_us + 2
    assert answer.fusion_us <= answer.latency_us


def test_states_count(running: Aggregator) -> None:
    """Every device is up, with times and the peak memory of its process."""
    before = running.fleet_state().answered
    running.answer(stub_image())
    assert running.fleet_state().answered == before + 1
    assert running.fleet_state().latency is not None
    for state in running.states():
        assert (state.is_up, state.missed, state.reason) == (True, 0, "")
        assert state.transport is not None
        assert state.compute is not None
        assert state.compute.p50 <= state.compute.p99
        assert (state.peak_memory_bytes or 0) > 2**20


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((1, 4, 5), np.uint8), r"uint8 of shape \(1, 4, 4\), got uint8 of shape \(1, 4, 5\)"),
        (np.zeros((1, 4, 4), np.float32), r"uint8 of shape \(1, 4, 4\), got float32 of shape"),
    ],
)
def test_other_images_are_refused(running: Aggregator, image: NDArray[Any], message: str) -> None:
    """Shape and type are those of the deployment."""
    with pytest.raises(InputError, match=message):
        running.answer(image)


def test_a_sliced_image_is_answered(running: Aggregator) -> None:
    """An image need not lie in memory as it is sent."""
    wide = np.random.default_rng(3).integers(0, 256, (1, 4, 8), dtype=np.uint8)
    assert is_right(running.answer(wide[:, :, ::2]), wide[:, :, ::2])


def test_a_worker_that_was_never_there_is_left_out() -> None:
    """The others answer at once, and the state says why one is missing."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with stub_aggregator(wait=False, pump=address) as aggregator:
        while any(not s.is_up for s in aggregator.states() if s.name != "pump"):
            aggregator.step(time.monotonic_ns() + 10_000_000)
        image = stub_image()
        assert is_right(aggregator.answer(image), image, "pump")
        assert aggregator.states()[PLACES["pump"]].reason == "Connection refused"
        assert dict(aggregator.fleet_state().missing) == {("pump",): 1}


def test_an_image_waits_for_the_only_device() -> None:
    """Where no device is there yet, an image is answered as soon as one comes, within its deadline."""
    with (
        stub_worker("hub", 2) as hub,
        fake_worker(lambda peer: None) as none,
        Aggregator(DEPLOYMENT, {"hub": str(hub), "pump": none, "vent": none}, FAR) as aggregator,
    ):
        assert is_right(aggregator.answer(stub_image()), stub_image(), "pump", "vent")


def test_nobody_there_is_no_answer() -> None:
    """An image waits for a device until its deadline; without any there is no label."""
    with (
        fake_worker(lambda peer: None) as address,
        stub_aggregator(50_000, wait=False, hub=address, pump=address, vent=address) as aggregator,
    ):
        answer = aggregator.answer(stub_image())
    assert answer.label is None
    assert answer.latency_us >= 50_000
    assert answer.missing == ("hub", "pump", "vent")


def test_a_killed_worker_is_left_out_and_comes_back() -> None:
    """Killed in the middle of an image, it is left out at once; started again, it takes part again."""
    with stub_process("pump", 3) as pump, stub_aggregator(pump=pump.address) as aggregator:
        answers = submitted(aggregator, slow_image())
        pump.wait_until_it_computes()
        pump.kill()
        answer = finished(aggregator, answers)
        assert is_right(answer, slow_image(), "pump")
        assert answer.latency_us < FAR
        assert is_right(aggregator.answer(stub_image()), stub_image(), "pump")
        again = StubProcess("pump", 3, pump.address)
        try:
            assert is_back(aggregator, "pump")
        finally:
            again.kill()


def test_a_stopped_worker_is_left_out_and_comes_back() -> None:
    """Stopped in the middle of an image, it costs the deadline once; continued, it takes part again.

    On a busy machine others may be late, too.
    """
    with stub_process("pump", 3) as pump, stub_aggregator(deadline_us=1_500_000, pump=pump.address) as aggregator:
        pump.send_signal(signal.SIGSTOP)
        answers = list(aggregator.answers([stub_image()] * 5))
        assert all(is_right(answer, stub_image(), *answer.missing) for answer in answers)
        assert all("pump" in answer.missing for answer in answers)
        assert answers[0].latency_us >= 1_500_000
        assert aggregator.states()[PLACES["pump"]].missed == 1
        pump.send_signal(signal.SIGCONT)
        assert is_back(aggregator, "pump")


def test_a_worker_stopped_for_long_is_connected_to_anew() -> None:
    """Silence makes a device lost; it comes back all the same."""
    with stub_process("pump", 3) as pump, stub_aggregator(deadline_us=50_000, pump=pump.address) as aggregator:
        pump.send_signal(signal.SIGSTOP)
        while aggregator.states()[PLACES["pump"]].is_up:
            aggregator.answer(stub_image())
            aggregator.step(time.monotonic_ns() + 10_000_000)
        assert aggregator.states()[PLACES["pump"]].reason == "silent for 2 s"
        pump.send_signal(signal.SIGCONT)
        assert is_back(aggregator, "pump")


def test_a_device_rests_longer_each_time_it_is_late() -> None:
    """0.1 s, then twice as long each time, at most half a minute; an answer in time begins anew."""
    now = 0
    target = workers_of(DEPLOYMENT, dict.fromkeys(NUM_FEATURES, "127.0.0.1:1"))[1]
    with selectors.DefaultSelector() as selector:
        connection = Connection(target, 1, selector, lambda: now, lambda *_: None, lambda *_: None, lambda _: None)
        rests = []
        for times_late in range(13):
            if times_late == 11:
                connection.answered(10, 5)
            connection.rest()
            began = now
            while not connection.is_rested:
                now += 1_000_000
            rests.append((now - began) // 1_000_000)
    assert rests == [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 100, 200]
    assert connection.times.missed == 13


def test_a_late_reply_is_not_taken_for_the_next_image() -> None:
    """What a device says about an image that is answered already is forgotten."""
    is_answered = threading.Event()

    def features(image: memoryview) -> bytes:
        assert is_answered.wait(PATIENCE_S)
        return struct.pack("<3f", image[0], 0, 0)

    with stub_worker("pump", 3, features) as pump, stub_aggregator(deadline_us=50_000, pump=str(pump)) as aggregator:
        first, second = stub_image(1), stub_image(2)
        assert "pump" not in aggregator.answer(first).replies
        is_answered.set()
        until = time.monotonic() + PATIENCE_S
        while "pump" not in (answer := aggregator.answer(second)).replies and time.monotonic() < until:
            aggregator.step(time.monotonic_ns() + 10_000_000)
        pixels = second.ravel() / np.float32(255)
        of_all = {"hub": pixels[:2], "pump": np.array([second[0, 0, 0], 0, 0], np.float32), "vent": pixels[:4]}
    assert "pump" in answer.replies
    features_of = {PLACES[name]: of_all[name] for name in answer.replies}
    fusion = ArrayFusion(DEPLOYMENT.fusion, list(NUM_FEATURES.values()))
    assert np.allclose(answer.logits, fusion.logits(features_of), rtol=1e-4)


def test_each_device_needs_an_address() -> None:
    """A missing address, one of no device, and a malformed one are bad input."""
    with pytest.raises(InputError, match=r"`address` must be given for each device, got none for 'vent'"):
        Aggregator(DEPLOYMENT, {"hub": "127.0.0.1:1", "pump": "127.0.0.1:1"})
    addresses = dict.fromkeys(NUM_FEATURES, "127.0.0.1:1")
    with pytest.raises(InputError, match=r"`address`: 'pumq' is not a device of deploy.*pump"):
        Aggregator(DEPLOYMENT, addresses | {"pumq": "127.0.0.1:1"})
    with pytest.raises(InputError, match=r"vent: address must be HOST:PORT"):
        Aggregator(DEPLOYMENT, addresses | {"vent": "here"})


def test_deadlines_follow_the_plan() -> None:
    """The planned 370 us and 100 ms; twice the plan where that is more."""
    manifest = DEPLOYMENT.manifest
    assert default_deadline_us(manifest) == 100_370
    assert default_deadline_us(manifest.replace(latency_us=500_000)) == 1_000_000


@pytest.mark.parametrize("in_flight", [0, 65])
def test_images_under_way_are_bounded(running: Aggregator, in_flight: int) -> None:
    """At most as many as may wait on a worker."""
    with pytest.raises(InputError, match=f"`in_flight` must be from 1 to 64, got {in_flight}"):
        next(running.answers([], in_flight))


def test_the_bundle_is_that_of_the_deployment() -> None:
    """The stubs speak of the same bundle as the deployment."""
    assert DEPLOYMENT.manifest.bundle == BUNDLE
