"""Aggregators of stub workers, and the answers that they must give."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.runtime.aggregator import Aggregator, Answer
from planner.runtime.fusion import ArrayFusion
from tests.helpers.raw_peer import PATIENCE_S
from tests.helpers.stub_fleet import stub_deployment, stub_image, stub_worker

DEPLOYMENT = stub_deployment()
NUM_FEATURES = {device.name: device.features for device in DEPLOYMENT.manifest.devices}
PLACES = {name: place for place, name in enumerate(NUM_FEATURES)}
# Never reached where nothing fails, however busy the machine.
FAR = 600_000_000


@contextmanager
def stub_aggregator(deadline_us: int = FAR, wait: bool = True, **other: str) -> Iterator[Aggregator]:
    """Yield an aggregator with a stub worker in a thread for each device that is given no other address."""
    with ExitStack() as stack:
        addresses = dict(other)
        for name, count in NUM_FEATURES.items():
            if name not in addresses:
                addresses[name] = str(stack.enter_context(stub_worker(name, count)))
        aggregator = stack.enter_context(Aggregator(DEPLOYMENT, addresses, deadline_us))
        if wait:
            assert aggregator.connect(PATIENCE_S) == ()
        yield aggregator


def expected_logits(image: NDArray[np.uint8], missing: tuple[str, ...] = ()) -> NDArray[Any]:
    """Return the logits of an image whose features stub workers give, without some of them."""
    pixels = image.ravel() / np.float32(255)
    features = {PLACES[name]: pixels[:count] for name, count in NUM_FEATURES.items() if name not in missing}
    return ArrayFusion(DEPLOYMENT.fusion, list(NUM_FEATURES.values())).logits(features)


def is_right(answer: Answer, image: NDArray[np.uint8], *missing: str) -> bool:
    """Return whether an answer is that of all devices but the missing ones, which it names."""
    logits = expected_logits(image, missing)
    return answer.missing == missing and np.allclose(answer.logits, logits) and answer.label == int(logits.argmax())


def is_back(aggregator: Aggregator, name: str) -> bool:
    """Return whether a device takes part in answers again, sooner or later."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        aggregator.step(time.monotonic_ns() + 10_000_000)
        if name in aggregator.answer(stub_image()).replies:
            return True
    return False
