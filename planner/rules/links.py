"""Transfer times between the aggregator and the devices: routes, and shared media.

A message takes the path that is fastest for it alone. A shared link is one medium: messages pass it one after another,
all inputs first, and later all features. Each device is planned as the last in the queue, so that the order does not
matter: its message waits for those of all other used devices that take the same medium.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import networkx as nx

from planner.errors import InputError
from planner.schema import Fleet


@dataclass(frozen=True)
class Transfer:
    """Message between the aggregator and one device."""

    num_bytes: int
    alone_us: Fraction  # without any other message on the path
    # Of it, until the first byte arrives; the rest grows with the bytes.
    latency_us: Fraction = field(default=Fraction(0), compare=False)
    media: tuple[int, ...] = ()  # the shared media on its path
    relays: frozenset[str] = frozenset()  # the devices between the two ends
    # From the aggregator to the device, both included. Not compared: equal devices differ in its last step.
    path: tuple[str, ...] = field(default=(), compare=False)

    def time_us(self, load_bytes: Sequence[int], us_per_byte: Sequence[Fraction]) -> int:
        """Return the time [us], rounded up, as the last of all messages on its media.

        Args:
            load_bytes: Bytes of all messages on each medium, this one included.
            us_per_byte: Time per byte of each medium.
        """
        waits = sum(((load_bytes[m] - self.num_bytes) * us_per_byte[m] for m in self.media), Fraction(0))
        return math.ceil(self.alone_us + waits)


def rational(number: float) -> Fraction:
    """Return a number exactly as the user wrote it: 0.1 is a tenth, not the nearest binary fraction."""
    return Fraction(repr(float(number)))


def media_us_per_byte(fleet: Fleet) -> tuple[Fraction, ...]:
    """Return the time per byte [us] of each shared medium, in the order of the links, that of the default link last."""
    found: dict[int, Fraction] = {}
    for number, speed in zip(_medium_numbers(fleet), fleet.link_speeds, strict=True):
        found[number] = 8 / rational(speed.bandwidth_mbps)
    return tuple(found[number] for number in sorted(found) if number >= 0)


def medium_loads(transfers: Sequence[Transfer], num_media: int) -> list[int]:
    """Return the bytes that these messages send over each medium together."""
    load_bytes = [0] * num_media
    for transfer in transfers:
        for m in transfer.media:
            load_bytes[m] += transfer.num_bytes
    return load_bytes


def hop_graph(fleet: Fleet) -> nx.MultiGraph:
    """Return the graph of single devices and the hops between them, without the default link.

    Edges: latency [ms] and bandwidth [Mbit/s], exact; medium (its number, -1 if it is not shared).
    """
    hops = nx.MultiGraph()
    hops.add_nodes_from(member.name for member in fleet.members)
    for link, medium in zip(fleet.links, _medium_numbers(fleet), strict=False):
        speed = {"latency": rational(link.latency_ms), "bandwidth": rational(link.bandwidth_mbps)}
        for a in fleet.member_names[link.between[0]]:
            for b in fleet.member_names[link.between[1]]:
                if a != b:
                    hops.add_edge(a, b, **speed, medium=medium)
    return hops


def make_router(fleet: Fleet) -> Callable[[str, int], Transfer]:
    """Return a function (device, bytes) -> `Transfer` over the fastest path.

    The fastest path depends on the size of the message. For each bandwidth of a link, Dijkstra's algorithm finds the
    path of least latency among the links that are at least as fast, and of these paths the fastest is taken.

    Raises:
        InputError: If a device cannot be reached from the aggregator.
    """
    numbers, hops = _medium_numbers(fleet), hop_graph(fleet)
    # (bandwidth, {device: latency}, {device: path}) for each bandwidth that some link has, the widest first.
    levels = []
    for bandwidth in sorted({b for *_, b in hops.edges(data="bandwidth")}, reverse=True):
        wide = nx.MultiGraph()
        wide.add_node(fleet.aggregator)
        wide.add_edges_from(e for e in hops.edges(data=True) if e[2]["bandwidth"] >= bandwidth)
        levels.append((bandwidth, *nx.single_source_dijkstra(wide, fleet.aggregator, weight="latency"), wide))
    reached = nx.node_connected_component(hops, fleet.aggregator)
    default = fleet.default_link
    for member in fleet.members:
        if member.name not in reached and default is None:
            raise InputError(
                f"device {member.name!r}: must be reachable from the aggregator {fleet.aggregator!r}, "
                "got no path of links; add a link or a default_link."
            )

    def route(device: str, num_bytes: int) -> Transfer:
        if device == fleet.aggregator:
            return Transfer(0, Fraction(0), path=(device,))
        bits = 8 * num_bytes
        if device not in reached:
            assert default is not None
            latency_us = 1000 * rational(default.latency_ms)
            alone_us = latency_us + bits / rational(default.bandwidth_mbps)
            shared = (numbers[-1],) if default.shared else ()
            return Transfer(num_bytes, alone_us, latency_us, shared, path=(fleet.aggregator, device))
        alone_us, latency_us, path, wide = min(
            (
                (1000 * ms[device] + bits / mbps, 1000 * ms[device], paths[device], wide)
                for mbps, ms, paths, wide in levels
                if device in ms
            ),
            key=lambda found: found[0],
        )
        return Transfer(num_bytes, alone_us, latency_us, _media_on(path, wide), frozenset(path[1:-1]), tuple(path))

    return route


def _medium_numbers(fleet: Fleet) -> list[int]:
    """Return the number of each link's medium, that of the default link last; -1 for a link that is not shared."""
    known: dict[str | int, int] = {}
    numbers = []
    for i, speed in enumerate(fleet.link_speeds):
        label = speed.shared if isinstance(speed.shared, str) else i
        numbers.append(known.setdefault(label, len(known)) if speed.shared else -1)
    return numbers


def _media_on(path: Sequence[str], hops: nx.MultiGraph) -> tuple[int, ...]:
    """Return the numbers of the shared media that a path uses."""
    found = set()
    for a, b in itertools.pairwise(path):
        fastest = min(hops[a][b].values(), key=lambda hop: hop["latency"])
        found.add(fastest["medium"])
    return tuple(sorted(found - {-1}))
