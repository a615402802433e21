"""Images whose importance is measured."""

import pytest

from planner.network.data import Samples
from tests.helpers.importance import LABELS, SHAPE
from tests.helpers.plain_vit import random_images


@pytest.fixture
def samples() -> Samples:
    """Six images of three classes: two, one and three of each."""
    return Samples(random_images(SHAPE, 6), LABELS)
