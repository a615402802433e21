"""Which devices run a firmware, read from their own budgets and from the cards of their kinds."""

import pytest

from planner.rules.engine import is_microcontroller
from planner.schema import Device


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"kind": "esp32-s3"}, True),
        # Its card has no flash, but what code takes there.
        ({"kind": "stm32n6"}, True),
        ({"macs_per_second": 1e8, "engine": "c", "storage_budget": "64KiB"}, True),
        ({"macs_per_second": 1e8, "engine": "c"}, False),
        ({"kind": "raspberry-pi-zero-w"}, False),
        ({"kind": "raspberry-pi-5"}, False),
        ({"kind": "a-kind-without-a-card"}, False),
    ],
)
def test_microcontrollers_read_weights_in_flash(properties: dict[str, object], expected: bool) -> None:
    """A card or a budget of flash says so; C alone does not, as Linux boards run it too."""
    device = Device.model_validate({"name": "board", "memory_budget": "1MiB", **properties})
    assert is_microcontroller(device) == expected
