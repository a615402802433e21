"""Routes and shared media against arithmetic on paper: an input is 800 bit, features of embed dim 8 are 256 bit."""

import itertools
from fractions import Fraction

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.rules import cost
from planner.rules.fastest_paths import Hop, fastest_paths
from planner.rules.links import Router, _hops, media_us_per_byte, medium_loads
from planner.schema import Fleet
from tests.helpers.common import Json
from tests.helpers.pencil import fleet, fleet_data, profile


def hop(a: str, b: str, mbps: float, ms: float, shared: bool | str = True) -> Json:
    """Return a link."""
    return {"between": [a, b], "bandwidth_mbps": mbps, "latency_ms": ms, "shared": shared}


def linked(*links: Json, count: int = 1, default: Json | None = None) -> Fleet:
    """Return the pencil fleet with these links and this count of `far`."""
    gateway, near, far = fleet_data()["devices"]
    return fleet(devices=[gateway, near, far | {"count": count}], links=list(links), default_link=default)


def travel(in_fleet: Fleet, *used: str) -> dict[str, tuple[int, int]]:
    """Return the send and return times [us] when these devices are in use, all at embed dim 8."""
    costs = {device.name: device for device in cost.device_costs(profile(), in_fleet)}
    at = [costs[name].at(8) for name in used]
    return dict(zip(used, cost.transfers_us(in_fleet, [w for w in at if w is not None]), strict=True))


# --- shared media


def test_on_one_medium_each_waits_for_all_others() -> None:
    """Alone 1000 + 800 / 8 and 1000 + 256 / 8; of three, each waits for two: 2 x 100 and 2 x 32 more."""
    one = linked(hop("gateway", "far", 8, 1), hop("gateway", "near", 8, 1, shared=False), count=3)
    assert travel(one, "far-2") == {"far-2": (1100, 1032)}
    assert travel(one, "far-1", "far-2") == dict.fromkeys(("far-1", "far-2"), (1200, 1064))
    three = travel(one, "near", "far-1", "far-2", "far-3")
    assert three == {"near": (1100, 1032)} | dict.fromkeys(("far-1", "far-2", "far-3"), (1300, 1096))


def test_without_sharing_no_message_waits() -> None:
    """The same link unshared gives three parallel paths."""
    one = linked(hop("gateway", "far", 8, 1, shared=False), hop("gateway", "near", 8, 1), count=3)
    assert travel(one, "far-1", "far-2", "far-3") == dict.fromkeys(("far-1", "far-2", "far-3"), (1100, 1032))


def test_two_shared_links_are_two_media() -> None:
    """Each shared link is a medium of its own, so `near` and `far` do not wait for each other."""
    two = linked(hop("gateway", "near", 8, 1), hop("gateway", "far", 4, 2))
    assert travel(two, "near", "far") == {"near": (1100, 1032), "far": (2200, 2064)}


def test_links_that_share_a_name_are_one_medium() -> None:
    """On two links of one Wi-Fi, `near` waits for the inputs of both others, 2 x 100 us, `far-1` likewise."""
    air = linked(hop("gateway", "near", 8, 1, "air"), hop("gateway", "far", 8, 2, "air"), count=2)
    times = travel(air, "near", "far-1", "far-2")
    assert times == {"near": (1300, 1096), "far-1": (2300, 2096), "far-2": (2300, 2096)}
    assert media_us_per_byte(air) == (Fraction(1),)
    # By another name it is another medium, and so is what has none.
    for other in ("ether", True):
        two = linked(hop("gateway", "near", 8, 1, "air"), hop("gateway", "far", 8, 2, other))
        assert travel(two, "near", "far") == {"near": (1100, 1032), "far": (2100, 2032)}


def test_a_message_takes_a_medium_once() -> None:
    """Over two hops by one Wi-Fi, `far` waits for the 800 bit of `near` once: 2000 + 100 + 100."""
    air = linked(hop("gateway", "near", 8, 1, "air"), hop("near", "far", 8, 1, "air"))
    assert travel(air, "near", "far") == {"near": (1200, 1064), "far": (2200, 2064)}


def test_the_default_link_can_be_of_a_named_medium() -> None:
    """`near` by its link and `far` by the default link take one Wi-Fi."""
    default = {"bandwidth_mbps": 8, "latency_ms": 2, "shared": "air"}
    air = linked(hop("gateway", "near", 8, 1, "air"), default=default)
    assert travel(air, "near", "far") == {"near": (1200, 1064), "far": (2200, 2064)}


def test_a_medium_has_one_bandwidth() -> None:
    """Two links of one medium must state the same bandwidth."""
    with pytest.raises(ValueError, match=r"one medium must have one bandwidth, 'air' has 8 and 4 Mbit/s"):
        linked(hop("gateway", "near", 8, 1, "air"), hop("near", "far", 4, 1, "air"))


def test_a_message_waits_on_each_medium_of_its_path() -> None:
    """`near` shares the first hop with two devices, which share the second hop as well.

    Of 800 bit, one takes 100 us on the first hop and 200 us on the second. `near`: 1100 + 2 x 100.
    `far-1`: 3000 + 200, then 2 x 100 for `near` and `far-2`, and 200 for `far-2`. Of 256 bit, 32 and
    64 us: 1032 + 2 x 32 and 3064 + 2 x 32 + 64.
    """
    deep = linked(hop("gateway", "near", 8, 1), hop("near", "far", 4, 2), count=2)
    times = travel(deep, "near", "far-1", "far-2")
    assert times == {"near": (1300, 1096), "far-1": (3600, 3192), "far-2": (3600, 3192)}


def test_a_relay_without_a_sub_model_takes_no_medium() -> None:
    """With `far` alone in use, its messages through `near` wait for nothing."""
    deep = linked(hop("gateway", "near", 8, 1), hop("near", "far", 4, 2))
    assert travel(deep, "far") == {"far": (3200, 3064)}


def test_the_aggregator_waits_for_nobody() -> None:
    """The aggregator sends nothing, so neither it nor others wait."""
    one = linked(hop("gateway", "near", 8, 1), hop("near", "far", 4, 2))
    assert travel(one, "gateway", "near") == {"gateway": (0, 0), "near": (1100, 1032)}


def test_a_shared_default_link_is_one_medium_for_all_that_it_leads_to() -> None:
    """`far-1` and `far-2` have no link: 500 + 800 / 8 + 100 and 500 + 256 / 8 + 32; `near` has its own."""
    default = {"bandwidth_mbps": 8, "latency_ms": 0.5, "shared": True}
    one = linked(hop("gateway", "near", 8, 1), count=2, default=default)
    times = travel(one, "near", "far-1", "far-2")
    assert times == {"near": (1100, 1032), "far-1": (700, 564), "far-2": (700, 564)}


def test_waits_are_rounded_with_the_rest() -> None:
    """800 / 3 = 266.67 and as much again are 533.33, not 2 x 267; 256 / 3 twice is 170.67."""
    one = linked(hop("gateway", "far", 3, 0), hop("gateway", "near", 3, 0), count=2)
    assert travel(one, "far-1", "far-2") == dict.fromkeys(("far-1", "far-2"), (534, 171))


def test_the_route_is_the_fastest_alone() -> None:
    """The shared link takes 1100 alone and 1200 in company; it is still chosen before a cable of 1150 us."""
    two = linked(hop("gateway", "far", 8, 1), hop("gateway", "far", 8, 1.05, shared=False), count=2, default=SLOW)
    assert travel(two, "far-1", "far-2") == dict.fromkeys(("far-1", "far-2"), (1200, 1064))
    # At 0.95 ms the cable is the fastest alone, and no message waits on it.
    two = linked(hop("gateway", "far", 8, 1), hop("gateway", "far", 8, 0.95, shared=False), count=2, default=SLOW)
    assert travel(two, "far-1", "far-2") == dict.fromkeys(("far-1", "far-2"), (1050, 982))


SLOW = {"bandwidth_mbps": 1, "latency_ms": 9}


def test_media_are_counted_where_links_are_shared_and_the_default_link_is_last() -> None:
    """A byte takes 8 / 8 us on the first, 8 / 2 on the default link; the unshared one is no medium."""
    default = {"bandwidth_mbps": 2, "latency_ms": 0, "shared": True}
    both = linked(hop("gateway", "near", 4, 1, shared=False), hop("gateway", "near", 8, 0), default=default)
    assert media_us_per_byte(both) == (Fraction(1), Fraction(4))
    route = Router(both).transfer
    assert (route("near", 100).media, route("far", 100).media, route("gateway", 100).media) == ((0,), (1,), ())
    assert route("near", 100).alone_us == 100
    assert media_us_per_byte(linked(hop("gateway", "near", 8, 0, shared=False), default=SLOW)) == ()


def test_loads_are_the_bytes_of_all_messages_on_a_medium() -> None:
    """100 bytes to `near` over the first hop, 40 to `far` over both; the aggregator's take none."""
    deep = linked(hop("gateway", "near", 8, 1), hop("near", "far", 4, 2))
    route = Router(deep).transfer
    messages = [route("near", 100), route("far", 40), route("gateway", 999)]
    assert medium_loads(messages, 2) == [140, 40]
    # `far` waits for the 100 bytes of `near` at 1 us each: 3000 + 320 / 4 + 100.
    assert messages[1].time_us([140, 40], media_us_per_byte(deep)) == 3180
    assert media_us_per_byte(deep) == (Fraction(1), Fraction(2))


# --- relays


def test_relays_are_the_devices_between() -> None:
    """`far` is reached over `near`; `near` and the aggregator have no relays."""
    router = Router(fleet())
    assert router.transfer("far", 100).relays == {"near"}
    assert router.transfer("near", 100).relays == router.transfer("gateway", 100).relays == frozenset()
    assert router.path("far", 100) == ("gateway", "near", "far")
    assert router.path("gateway", 100) == ("gateway",)


def test_equal_devices_have_equal_transfers() -> None:
    """The paths to `far-1` and `far-2` differ in their last step only, which makes no difference."""
    router = Router(linked(hop("gateway", "near", 8, 1), hop("near", "far", 4, 2), count=2))
    assert router.transfer("far-1", 100) == router.transfer("far-2", 100)
    assert router.path("far-1", 100) != router.path("far-2", 100)


def test_the_default_link_relays_nothing() -> None:
    """The default link leads straight to the device."""
    router = Router(linked(hop("gateway", "near", 8, 1), default=SLOW))
    assert (router.transfer("far", 100).relays, router.path("far", 100)) == (frozenset(), ("gateway", "far"))


@pytest.mark.parametrize(("input_bytes", "relays"), [(100, frozenset()), (10_000, frozenset({"near"}))])
def test_a_device_depends_on_the_relays_of_both_ways(input_bytes: int, relays: frozenset[str]) -> None:
    """Small features return directly; an image of 80,000 bit comes faster over `near` (1800 us, not 80,000)."""
    both = linked(
        hop("gateway", "far", 1, 0), hop("gateway", "near", 100, 0.5), hop("near", "far", 100, 0.5, shared=False)
    )
    costs = cost.device_costs(profile(input_bytes=input_bytes), both)
    assert {device.name: device.relays for device in costs} == {
        "gateway": frozenset(),
        "near": frozenset(),
        "far": relays,
    }


# --- many hops


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_fastest_path_is_that_of_every_bandwidth_by_itself(data: st.DataObject) -> None:
    """Against Dijkstra's algorithm of networkx, run anew for each bandwidth on the links that are at least as wide."""
    nodes = [str(i) for i in range(data.draw(st.integers(2, 6)))]
    pairs = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)).filter(lambda pair: pair[0] != pair[1])
    drawn = data.draw(st.lists(st.tuples(pairs, st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=12))
    hops = [Hop(a, b, Fraction(ms), Fraction(mbps), i) for i, ((a, b), mbps, ms) in enumerate(drawn)]
    paths = fastest_paths("0", hops)
    for bits in (0, 1, 700, 10**6):
        expected: dict[str, Fraction] = {}
        for bandwidth in {h.bandwidth_mbps for h in hops}:
            wide = nx.MultiGraph()
            wide.add_nodes_from(nodes)
            wide.add_edges_from((h.a, h.b, {"ms": h.latency_ms}) for h in hops if h.bandwidth_mbps >= bandwidth)
            for device, ms in nx.single_source_dijkstra_path_length(wide, "0", weight="ms").items():
                us = 1000 * ms + bits / bandwidth
                expected[device] = min(us, expected.get(device, us))
        found = {device: min(path.time_us(bits) for path in ways) for device, ways in paths.items() if device != "0"}
        assert found == {device: us for device, us in expected.items() if device != "0"}
    for ways in paths.values():
        for path in ways:
            steps = path.steps
            assert [step.device for step in (steps[0], steps[-1])] == ["0", path.device]
            for before, step in itertools.pairwise(steps):
                hop_ = hops[step.medium]
                assert {before.device, step.device} == {hop_.a, hop_.b}
                assert hop_.bandwidth_mbps >= path.bandwidth_mbps
            assert path.latency_ms == sum((hops[step.medium].latency_ms for step in steps[1:]), Fraction(0))


def chain(num_devices: int, step: int = 1) -> Fleet:
    """Return devices in a row, each link of another bandwidth, and a link to every `step`-th of them."""
    devices = [{"name": str(i), "macs_per_second": 1e9, "memory_budget": "1MiB"} for i in range(num_devices)]
    links = [hop(str(i), str(i + 1), 1 + i % 997 / 1000, 1, False) for i in range(num_devices - 1)]
    links += [hop("0", str(i), 1, 30, False) for i in range(step, num_devices, step)] if step > 1 else []
    return fleet(aggregator="0", devices=devices, links=links)


def test_a_chain_has_a_longest_way() -> None:
    """64 hops are planned, 65 are refused in a sentence, and so are 5,000."""
    router = Router(chain(65))
    found = router.transfer("64", 0)
    assert (int(found.alone_us), len(router.path("64", 0)), len(found.relays)) == (64_000, 65, 63)
    for num_devices in (66, 5000):
        with pytest.raises(InputError, match=r"device '65': must be at most 64 hops from the aggregator '0', got more"):
            Router(chain(num_devices))


def test_a_thousand_bandwidths_are_routed_as_one() -> None:
    """2,000 devices over links of 997 bandwidths: each has as many ways as there are shortcuts, not as bandwidths."""
    paths = fastest_paths("0", _hops(chain(2000, step=25)))
    assert len(paths) == 2000
    assert sum(map(len, paths.values())) < 60_000


def test_a_count_linked_to_one_of_its_own_hangs_behind_that_one() -> None:
    """`far` and `far-1` are the hops from `far-1` to the others, and none to itself."""
    router = Router(
        linked(hop("gateway", "far-1", 8, 1), hop("far", "far-1", 8, 1), hop("gateway", "near", 8, 1), count=3)
    )
    assert [router.path(f"far-{i}", 100) for i in (1, 2, 3)] == [
        ("gateway", "far-1"),
        ("gateway", "far-1", "far-2"),
        ("gateway", "far-1", "far-3"),
    ]


def test_links_of_large_counts_are_bounded() -> None:
    """Two counts of 4,000 that are linked to each other would make 16 million hops."""
    gateway, near, far = fleet_data()["devices"]
    devices = [gateway, near | {"count": 4000}, far | {"count": 4000}]
    with pytest.raises(ValueError, match="links: must be at most 200,000 hops between single devices, got more"):
        fleet(devices=devices, links=[hop("near", "far", 1, 1)])
    with pytest.raises(ValueError, match="devices: must be at most 10000 with their counts, got 14001"):
        fleet(devices=[gateway, near | {"count": 10_000}, far | {"count": 4000}], links=[])
