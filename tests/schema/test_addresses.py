"""Addresses of workers in devices.json: read, checked, and without influence on plans."""

import pytest

from planner.errors import InputError
from planner.schema import Device, Fleet, sha256_of

FIELDS = {"name": "pi", "macs_per_second": 1e6, "memory_budget": "1MiB"}


@pytest.mark.parametrize("address", ["192.168.0.11:7447", "pi.local:1", "[fe80::1%eth0]:65535"])
def test_an_address_is_read(address: str) -> None:
    """IPv4, a name, IPv6 in brackets."""
    assert Device(**FIELDS, address=address).address == address


@pytest.mark.parametrize("address", ["pi", "pi:", ":7447", "pi:70000", "::1:80", "a b:1", "pi:7447\n", "pi:-1"])
def test_a_malformed_address_is_refused(address: str) -> None:
    """The message shows what an address is."""
    with pytest.raises(InputError, match=r"address must be HOST:PORT, such as 192\.168\.0\.11:7447, got "):
        Device(**FIELDS, address=address)


def test_equal_devices_have_no_common_address() -> None:
    """A device with a count stands for several."""
    with pytest.raises(InputError, match="address must be that of one device, got 'pi:7447' for 3 devices"):
        Device(**FIELDS, address="pi:7447", count=3)


def test_a_plan_outlives_a_new_address() -> None:
    """The hash of a fleet does not count addresses."""
    link = {"bandwidth_mbps": 8, "latency_ms": 1}
    fleets = [
        Fleet(aggregator="pi", devices=[FIELDS | extra], default_link=link)
        for extra in ({}, {"address": "pi:1"}, {"address": "pi:2"})
    ]
    assert len({sha256_of(fleet) for fleet in fleets}) == 1
    assert fleets[2].members[0].address == "pi:2"
